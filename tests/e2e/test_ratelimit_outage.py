# pyright: standard
"""A Redis that freezes, dies, is full, slow or late, under load: nobody waits longer than the time-out for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ratelimit_service.stores import redis_node
from ratelimit_service.stores.local import Local
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request
from tests.support.redis import RedisServer
from tests.support.waiting import until

CONFIG = """
domain: d
descriptors:
  - {key: shut, rate_limit: {unit: day, requests_per_unit: 4000000000, on_store_error: deny}}
  - {key: own, rate_limit: {unit: day, requests_per_unit: 10, on_store_error: local}}
"""
IN_FLIGHT = """
domain: d
descriptors:
  - {{key: run, rate_limit: {{unit: hour, requests_per_unit: 3, algorithm: concurrency, on_store_error: {mode}}}}}
  - {{key: all, rate_limit: {{unit: hour, requests_per_unit: 4, algorithm: concurrency, on_store_error: {mode}}}}}
"""
OK, OVER = 1, 2
# Longer than in practice: a busy machine must not look like a slow Redis.
TIMEOUT_S = 0.4
# What such a machine adds to the time-out, 1 ms of which is the store's own.
SLACK_S = 0.2


class Answer(NamedTuple):
    at: float
    took_s: float
    code: int


class Load:
    """So many clients, each of which asks again some milliseconds after it was answered."""

    def __init__(self, limiter: Limiter, *, clients: int = 50, every_s: float = 0.005) -> None:
        self.answers: list[Answer] = []
        self._limiter = limiter
        self._clients = clients
        self._every_s = every_s
        self._open = True
        self._body = request("d", [("shut", "x")])
        self._loop = asyncio.get_running_loop()
        self.in_flight = 0

    async def __aenter__(self) -> Load:
        for client in range(self._clients):
            self._loop.call_later(self._every_s * client / self._clients, self._ask)
        return self

    async def __aexit__(self, *fault: object) -> None:
        self._open = False
        await until(lambda: not self.in_flight, what="the last answers")

    def since(self, at: float) -> list[Answer]:
        return [answer for answer in self.answers if answer.at >= at]

    async def more(self, count: int) -> list[Answer]:
        """Waits for so many answers to what is asked from now on."""
        at = time.monotonic()
        await until(lambda: len(self.since(at)) >= count, what=f"{count} answers", within_s=30)
        return self.since(at)

    def _ask(self) -> None:
        at = time.monotonic()
        call = _Timed(lambda body: self._answered(at, body))
        self.in_flight += 1
        self._limiter.handler(self._body, call)

    def _answered(self, at: float, body: bytes) -> None:
        self.in_flight -= 1
        self.answers.append(Answer(at, time.monotonic() - at, body[1]))
        if self._open:
            self._loop.call_later(self._every_s, self._ask)


class _Timed(RecordedCall):
    def __init__(self, then: Callable[[bytes], None]) -> None:
        super().__init__()
        self._then = then

    def done(self, body: bytes) -> None:
        super().done(body)
        self._then(body)


def p99(answers: list[Answer]) -> float:
    return sorted(answer.took_s for answer in answers)[int(len(answers) * 0.99)]


def codes(answers: list[Answer]) -> set[int]:
    return {answer.code for answer in answers}


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


@contextlib.asynccontextmanager
async def asking(path: str, *, wait: bool = True, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[RedisStore]:
    store = RedisStore(RedisTarget(path=path), timeout_s=timeout_s)
    store.start()
    try:
        if wait:
            await until(lambda: store.available, what="the connection to Redis")
        yield store
    finally:
        await store.close()


async def test_nobody_waits_longer_than_the_time_out_for_a_redis_that_freezes(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with asking(redis.unix_path) as store, Load(Limiter(CONFIG, store, clock=Clock())) as load:
        assert codes(await load.more(500)) == {OK}
        redis.pause()
        hit = await load.more(500)
        assert p99(hit) <= TIMEOUT_S + SLACK_S
        gone = await load.more(2000)
        assert codes(gone) == {OVER}
        # By then nobody waits at all.
        assert p99(gone) <= SLACK_S
        redis.resume()
        await until(lambda: store.available, what="Redis to be back")
        assert codes(await load.more(500)) == {OK}
    assert [record.levelname for record in caplog.records if "out of reach" in record.message] == ["WARNING"]
    assert [record.levelname for record in caplog.records if "answers again" in record.message] == ["WARNING"]
    assert dict(store.nodes[0].errors) == {"timeout": 1}


async def test_a_redis_that_dies_under_load_is_done_without_and_found_again(redis: RedisServer) -> None:
    async with asking(redis.unix_path) as store, Load(Limiter(CONFIG, store, clock=Clock())) as load:
        await load.more(500)
        await redis.kill()
        gone = await load.more(2000)
        assert p99(gone) <= SLACK_S
        assert OVER in codes(gone)
        await redis.start()
        await until(lambda: store.available, what="Redis to be back")
        assert codes(await load.more(500)) == {OK}
        assert store.nodes[0].errors["unreachable"] == 1


async def test_a_full_redis_is_told_once_and_each_limit_follows_its_fail_mode(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction") as redis,
        asking(redis.unix_path) as store,
        Load(Limiter(CONFIG, store, clock=Clock())) as load,
    ):
        full = await load.more(2000)
        assert codes(full) == {OVER}
        assert p99(full) <= TIMEOUT_S
        assert store.nodes[0].errors["OOM"] >= 2000
        assert store.available
    assert len([record for record in caplog.records if "OOM" in record.message]) == 1


async def test_a_start_without_redis_answers_at_once(redis: RedisServer) -> None:
    await redis.kill()
    async with asking(redis.unix_path, wait=False) as store, Load(Limiter(CONFIG, store, clock=Clock())) as load:
        without = await load.more(1000)
        assert codes(without) == {OVER}
        assert p99(without) <= SLACK_S
        await redis.start()
        await until(lambda: store.available, what="Redis to be found")
        assert codes(await load.more(500)) == {OK}


async def test_what_is_estimated_meanwhile_ends_when_redis_is_back(redis: RedisServer) -> None:
    async with asking(redis.unix_path) as store:
        limiter = Limiter(CONFIG, store, clock=Clock(), local=Local(replicas=2))
        body = request("d", [("own", "x")])

        async def code() -> int:
            return (await limiter.response(body)).overall_code

        assert [await code() for _ in range(3)] == [OK] * 3
        redis.pause()
        assert [await code() for _ in range(8)] == [OK] * 5 + [OVER] * 3
        redis.resume()
        await until(lambda: store.available, what="Redis to be back")
        # Three before, the one that Redis was asked when it froze, and what is left of ten.
        assert [await code() for _ in range(8)] == [OK] * 6 + [OVER] * 2


@pytest.mark.parametrize("mode", ["allow", "deny", "local"])
@pytest.mark.parametrize("keys", [("run",), ("run", "all")], ids=["one", "two"])
async def test_requests_that_end_while_redis_stands_still_make_room_when_it_is_back(
    redis: RedisServer, mode: str, keys: tuple[str, ...]
) -> None:
    async with asking(redis.unix_path) as store:
        limiter = Limiter(IN_FLIGHT.format(mode=mode), store, clock=Clock())

        async def code(name: str, *ending: tuple[str, str]) -> int:
            asked = [[(key, "x"), ("dragoman.request", name), *ending] for key in keys]
            return (await limiter.response(request("d", *asked))).overall_code

        assert [await code(name) for name in "abcd"] == [OK] * 3 + [OVER]
        redis.pause()
        # The first is asked for on the open connection, and may still arrive; the others are not sent.
        for name in "abc":
            await code(name, ("dragoman.done", "1"))
        assert limiter.handler.running.untold == 3 * len(keys)
        redis.resume()
        await until(lambda: store.available, what="Redis to be back")
        # By then the store has room for one at the most: an answer of it is what has it told of the others.
        await code("d")
        assert [await code(name) for name in "defg"] == [OK] * 3 + [OVER]
        assert limiter.handler.running.untold == 0


class Delayed:
    """Stands before Redis and holds its answers back."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="dgm-")
        self.path = str(Path(self._folder.name) / "slow.sock")

    def delay_s(self) -> float:
        """How long the next answer takes."""
        return 0.0

    async def __aenter__(self) -> Delayed:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *fault: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, before = await asyncio.open_unix_connection(self._target)
        with contextlib.ExitStack() as stack:
            stack.callback(writer.close)
            stack.callback(before.close)
            forth = asyncio.create_task(self._copy(reader, before, lambda: 0.0))
            self._tasks |= {forth, asyncio.current_task()}  # type: ignore[arg-type]
            stack.callback(forth.cancel)
            await self._copy(behind, writer, lambda: self.delay_s())

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: Callable[[], float]
    ) -> None:
        while data := await reader.read(65536):
            if (wait_s := delay_s()) > 0:
                await asyncio.sleep(wait_s)
            writer.write(data)


async def test_a_redis_slower_than_the_time_out_is_not_waited_for(redis: RedisServer) -> None:
    async with (
        Delayed(redis.unix_path) as slow,
        asking(slow.path) as store,
        Load(Limiter(CONFIG, store, clock=Clock())) as load,
    ):
        assert OK in codes(await load.more(500))
        slow.delay_s = lambda: 3 * TIMEOUT_S
        await load.more(300)
        late = await load.more(2000)
        assert p99(late) <= SLACK_S
        assert codes(late) == {OVER}
        slow.delay_s = lambda: 0.0
        await until(lambda: store.available, what="Redis to be trusted again")
        assert OK in codes(await load.more(500))


async def test_an_outage_soon_after_another_is_told_when_it_lasts(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(redis_node, "_LOG_EVERY_S", 1.0)

    def told(what: str) -> int:
        return sum(what in record.message for record in caplog.records)

    async with (
        Delayed(redis.unix_path) as slow,
        asking(slow.path) as store,
        Load(Limiter(CONFIG, store, clock=Clock())) as load,
    ):
        await load.more(500)
        for number in (1, 2):
            slow.delay_s = lambda: 3 * TIMEOUT_S
            await until(lambda: not store.available, what="Redis to be late")
            if number == 1:
                await until(lambda: told("out of reach") == 1, what="the first outage to be told")
                slow.delay_s = lambda: 0.0
                await until(lambda: store.available, what="Redis to be trusted again")
        await until(lambda: told("out of reach") == 2, what="the second outage to be told")
        slow.delay_s = lambda: 0.0
        await until(lambda: told("answers again") == 2, what="the end of it to be told")
        assert told("out of reach") == 2


async def test_a_redis_that_is_late_every_other_time_is_trusted_ever_less(redis: RedisServer) -> None:
    timeout_s = 0.05
    async with (
        Delayed(redis.unix_path) as slow,
        asking(slow.path, timeout_s=timeout_s) as store,
        Load(Limiter(CONFIG, store, clock=Clock())) as load,
    ):
        late = [False]

        def every_other() -> float:
            late[0] = not late[0]
            return 1.5 * timeout_s if late[0] else 0.0

        slow.delay_s = every_other
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 2, what="two seconds", within_s=5)
        # Without a memory of it, it would be asked again each time that it answers a PING in time.
        assert store.nodes[0].errors["timeout"] <= 8
        waited = [answer for answer in load.since(began) if answer.took_s > timeout_s / 2]
        assert len(waited) < len(load.since(began)) * 0.2
