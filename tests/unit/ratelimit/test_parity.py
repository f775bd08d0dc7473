# pyright: standard
"""Every store decides as the plain model does, for random streams of requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, Reference, request
from tests.support.redis import RedisServer
from tests.support.waiting import until

CONFIG = """
domain: d
descriptors:
  - key: second
    rate_limit: {unit: second, requests_per_unit: 4}
  - key: minute
    rate_limit: {unit: minute, requests_per_unit: 10}
  - key: bucket
    rate_limit: {unit: minute, requests_per_unit: 20, algorithm: token_bucket, burst: 6}
  - key: odd
    rate_limit: {unit: second, requests_per_unit: 7, algorithm: token_bucket}
"""
KEYS = ("second", "minute", "bucket", "odd")

Asked = tuple[float, list[tuple[str, str, int | None]], int]

asked = st.tuples(
    st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.3, 1.0, 2.9, 3.0, 17.0, 61.0]),
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from("ab"), st.none() | st.integers(0, 8)), min_size=1, max_size=3
    ),
    st.integers(0, 5),
)


def expected(model: Reference, now: float, key: str, value: str, hits: int) -> tuple[bool, int, int]:
    who = (key, value)
    if key == "second":
        return model.fixed(who, now, seconds=1, limit=4, hits=hits)
    if key == "minute":
        return model.fixed(who, now, seconds=60, limit=10, hits=hits)
    if key == "bucket":
        return model.bucket(who, now, seconds=60, limit=20, burst=6, hits=hits)
    return model.bucket(who, now, seconds=1, limit=7, burst=7, hits=hits)


async def replay(limiter: Limiter, stream: list[Asked], tenant: str) -> None:
    """Sends the stream and compares every status with the model's."""
    model = Reference()
    for wait_s, descriptors, shared in stream:
        limiter.clock.now += wait_s
        body = request(
            "d",
            *([(key, value + tenant)] for key, value, _ in descriptors),
            hits=shared,
            own_hits=[own for _, _, own in descriptors],
        )
        response = await limiter.response(body)
        any_over = False
        for (key, value, own), status in zip(descriptors, response.statuses, strict=True):
            hits = own if own is not None else (shared or 1)
            over, remaining, reset_s = expected(model, limiter.clock.now, key, value, hits)
            any_over = any_over or over
            found = (status.code == 2, status.duration_until_reset.seconds)
            assert found == (over, reset_s), (key, value, hits, status)
            if not over:
                assert status.limit_remaining == remaining, (key, value, hits, status)
        assert response.overall_code == (2 if any_over else 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(asked, max_size=40))
def test_the_memory_store_decides_as_the_model_does(stream: list[Asked]) -> None:
    asyncio.run(replay(Limiter(CONFIG, MemoryStore(), clock=Clock()), stream, ""))


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


async def test_the_redis_store_decides_as_the_model_does(redis: RedisServer) -> None:
    tenants = iter(range(10_000))
    loop = asyncio.get_running_loop()
    store: Any = RedisStore(RedisTarget.parse(redis.unix_url), timeout_s=2, server_time=False)
    store.start()
    await until(lambda: store.available, what="the connection")

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(asked, max_size=40))
    def check(stream: list[Asked]) -> None:
        work = replay(Limiter(CONFIG, store, clock=Clock()), stream, f"-{next(tenants)}")
        asyncio.run_coroutine_threadsafe(work, loop).result(60)

    try:
        await asyncio.to_thread(check)
    finally:
        await store.close()
