"""Clients that ask a limiter again and again while its store is made to suffer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType

from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.redis_commands import key_of
from ratelimit_service.stores.redis_open import RedisCounters, open_redis
from tests.support.ratelimit import Clock, Limiter, loaded, request
from tests.support.waiting import until

CONFIG = """
domain: d
descriptors:
  - key: open
    rate_limit: {unit: day, requests_per_unit: 1000}
  - key: shut
    rate_limit: {unit: day, requests_per_unit: 100000, on_store_error: deny}
  - key: shut-bucket
    rate_limit: {unit: day, requests_per_unit: 1000, algorithm: token_bucket, on_store_error: deny}
  - key: never
    rate_limit: {unit: day, requests_per_unit: 1000, on_store_error: deny}
    shadow_mode: true
  - key: few
    rate_limit: {unit: day, requests_per_unit: 100, on_store_error: deny}
  - key: few-bucket
    rate_limit: {unit: day, requests_per_unit: 100, algorithm: token_bucket, on_store_error: deny}
"""
# Longer than in practice: a busy machine must not look like a slow Redis.
TIMEOUT_S = 0.3
# What a decision may take when Redis gives no answer: the time-out, and what such a machine adds.
BOUND_S = TIMEOUT_S + 1.0


@contextlib.asynccontextmanager
async def opened(
    url: str, *, per_second: str | None = None, wait: bool = True, timeout_s: float = TIMEOUT_S
) -> AsyncGenerator[RedisCounters]:
    """Yields the store of a URL, connected unless told not to wait."""
    store = open_redis(url, per_second=per_second, timeout_s=timeout_s)
    try:
        if wait:
            await until(lambda: store.available, what="the connection to Redis")
        yield store
    finally:
        await store.close()


def limiter(store: Store) -> Limiter:
    """Returns the request path over the store, at a time that stands still."""
    return Limiter(CONFIG, store, clock=Clock())


def counter_key(key: str, value: str) -> bytes:
    """Returns the key in Redis of what `limiter` counts for a descriptor."""
    (check,) = Planner(loaded(CONFIG), StatsRegistry()).plan(request("d", [(key, value)])).checks
    return key_of(check, Clock().now)


async def code(given: Limiter, key: str, value: str = "x") -> int:
    """Asks once; returns 1 for OK, 2 for over the limit (or refused for want of the store)."""
    return (await given.response(request("d", [(key, value)]))).overall_code


class Load:
    """`async with Load(limiter) as load`: `clients` that ask about a key each, a millisecond after the last answer."""

    def __init__(self, given: Limiter, *, clients: int = 16, key: str = "shut") -> None:
        self._given = given
        self._key = key
        self._clients = clients
        self._running = True
        self._tasks: list[asyncio.Task[None]] = []
        self.allowed: Counter[int] = Counter()
        """By client."""
        self.refused: Counter[int] = Counter()
        self.slowest_s = 0.0

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)

    async def until_allowed(self, count: int = 100, *, clients: Sequence[int] | None = None) -> None:
        """Waits until so many more requests (of each of these clients, if given) were allowed."""
        await self._until(self.allowed, count, clients, "allowed")

    async def until_refused(self, count: int = 100, *, clients: Sequence[int] | None = None) -> None:
        """Waits until so many more requests (of each of these clients, if given) were refused."""
        await self._until(self.refused, count, clients, "refused")

    async def _until(self, tally: Counter[int], count: int, clients: Sequence[int] | None, what: str) -> None:
        before = tally.copy()
        enough: Callable[[], bool]
        if clients is None:
            enough = lambda: tally.total() >= before.total() + count  # noqa: E731
        else:
            enough = lambda: all(tally[each] >= before[each] + count for each in clients)  # noqa: E731
        await until(enough, what=f"{count} requests to be {what}")

    async def _client(self, number: int) -> None:
        body = request("d", [(self._key, f"client-{number}")])
        while self._running:
            started = time.monotonic()
            response = await self._given.response(body)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            (self.allowed if response.overall_code == 1 else self.refused)[number] += 1
            # A client that spun would leave no time for the others, nor for the test.
            await asyncio.sleep(0.001)
