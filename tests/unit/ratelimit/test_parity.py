# pyright: standard
"""Every algorithm decides as its plain model does, in memory and in Redis, for random streams of requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from ratelimit_service.stores.base import Store
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from ratelimit_service.stores.shared_server import SharedMemory
from ratelimit_service.stores.shared_store import SharedStore
from ratelimit_service.waiting_room import WaitingRoom
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.ratelimit_models import (
    Ask,
    Concurrency,
    FixedWindow,
    LeakyBucket,
    Model,
    SlidingWindow,
    TokenBucket,
    decided,
)
from tests.support.redis import RedisServer
from tests.support.waiting import until

CONFIG = """
domain: d
descriptors:
  - {key: second, rate_limit: {unit: second, requests_per_unit: 4}}
  - {key: fixed, rate_limit: {unit: minute, requests_per_unit: 12}}
  - {key: sliding, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: slide, rate_limit: {unit: second, requests_per_unit: 7, algorithm: sliding_window}}
  - {key: bucket, rate_limit: {unit: minute, requests_per_unit: 20, algorithm: token_bucket, burst: 6}}
  - {key: odd, rate_limit: {unit: second, requests_per_unit: 7, algorithm: token_bucket}}
  - {key: queue, rate_limit: {unit: second, requests_per_unit: 3, algorithm: leaky_bucket, delay: 900ms}}
  - {key: meter, rate_limit: {unit: minute, requests_per_unit: 40, algorithm: leaky_bucket}}
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 4, algorithm: concurrency, lease_time: 2500ms}}
  - {key: watched, rate_limit: {unit: minute, requests_per_unit: 3, algorithm: sliding_window}, shadow_mode: true}
  - {key: shut, rate_limit: {unit: minute, requests_per_unit: 0, algorithm: sliding_window}}
  - {key: closed, rate_limit: {unit: minute, requests_per_unit: 0, algorithm: leaky_bucket, delay: 1s}}
  - {key: large, rate_limit: {unit: minute, requests_per_unit: 1000000}}
  - {key: seven, rate_limit: {unit: second, unit_multiplier: 7, requests_per_unit: 9}}
  - {key: slides, rate_limit: {unit: second, unit_multiplier: 7, requests_per_unit: 9, algorithm: sliding_window}}
  - {key: drops, rate_limit: {unit: minute, unit_multiplier: 3, requests_per_unit: 9, algorithm: token_bucket}}
"""
FIXED = ("second", "fixed", "seven")
KEYS = (
    *FIXED,
    "large",
    *("sliding", "slide", "slides", "bucket", "odd", "drops"),
    *("queue", "meter", "flight", "watched", "shut", "closed"),
)
CALLERS = "xyz"


def model_of(key: str) -> Model:
    models: dict[str, Model] = {
        "second": FixedWindow(4, 1),
        "fixed": FixedWindow(12, 60),
        "sliding": SlidingWindow(10, 60),
        "slide": SlidingWindow(7, 1),
        "bucket": TokenBucket(20, 60, 6),
        "odd": TokenBucket(7, 1, 7),
        "queue": LeakyBucket(3, 1, Fraction(9, 10)),
        "meter": LeakyBucket(40, 60, Fraction(0)),
        "flight": Concurrency(4, Fraction(5, 2)),
        "watched": SlidingWindow(3, 60),
        "shut": SlidingWindow(0, 60),
        "closed": LeakyBucket(0, 60, Fraction(1)),
        "seven": FixedWindow(9, 7),
        "large": FixedWindow(1_000_000, 60),
        "slides": SlidingWindow(9, 7),
        "drops": TokenBucket(9, 180, 9),
    }
    return models[key]


Descriptor = tuple[str, str, int | None, str, bool]
"""Key, value, hits of its own, caller, whether that has ended."""
Asked = tuple[float, list[Descriptor], int]

FORWARD = (0.0, 0.0, 0.0, 0.05, 0.3, 0.333333, 1.0, 1.5, 2.9, 3.0, 17.0, 61.0, 130.0)
BACK = (-0.2, -1.0, -70.0)


def streams(keys: tuple[str, ...], waits: tuple[float, ...]) -> st.SearchStrategy[list[Asked]]:
    descriptor = st.tuples(
        st.sampled_from(keys),
        st.sampled_from("ab"),
        st.none() | st.integers(-4, 8) | st.sampled_from([2**31, -(2**31)]),
        st.sampled_from(CALLERS),
        st.integers(0, 3).map(lambda n: n == 3),
    )
    descriptors = st.lists(descriptor, min_size=1, max_size=4)
    return st.lists(st.tuples(st.sampled_from(waits), descriptors, st.integers(0, 5)), max_size=40)


class Patient(WaitingRoom):
    """Lets everybody go at once, and notes how long they should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.wait_s = 0.0

    def hold(self, call: Any, wait_s: float, finish: Any) -> None:
        self.wait_s = wait_s
        self.leave()
        finish()


async def replay(store: Store, stream: list[Asked], tenant: str = "", *, clock: Clock | None = None) -> None:
    """Sends the stream and compares every status with the models'."""
    limiter = Limiter(CONFIG, store, clock=clock or Clock())
    room = limiter.handler.waiting = Patient()
    models: dict[tuple[str, str], Model] = {}
    began = time.monotonic()
    for wait_s, descriptors, shared in stream:
        limiter.clock.now += wait_s
        now_us = int(limiter.clock.now * 1_000_000)
        parts: list[tuple[Model, Ask, bool]] = []
        entries: list[list[tuple[str, str]]] = []
        own_hits: list[int | None] = []
        for key, value, own, caller, ends in descriptors:
            flies = key == "flight"
            ends = ends and flies
            if own is not None and (flies or key in FIXED):
                # Windows that are known to be over do not count: what is given back to them is no matter of a model.
                own = abs(own)
            if own is not None and key == "large":
                own = max(-8, min(own, 8))
            hits = own if own is not None else (shared or 1)
            model = models.setdefault((key, value), model_of(key))
            parts.append((model, Ask(now_us, hits, caller if flies else "", ends), key != "watched"))
            more = [("dragoman.request", caller)] if flies else []
            own_hits.append(own)
            entries.append([*more, (key, value + tenant), *([("dragoman.done", "")] if ends else [])])
        flying = [id(model) for model, _, _ in parts if isinstance(model, Concurrency)]
        if len(set(flying)) < len(flying):
            # One request with two names, or that begins and ends: there is no such thing.
            continue
        expected = decided(parts)
        room.wait_s = 0.0
        response = await limiter.response(request("d", *entries, hits=shared, own_hits=own_hits))
        if time.monotonic() - began > 0.5:
            # Redis goes by its own clock when it drops what has expired: ours must not stand still for long.
            return
        refused = False
        for (model, ask, binding), told, status in zip(parts, expected, response.statuses, strict=True):
            over, remaining, reset_s = told
            refused = refused or (over and binding)
            found = status.code == 2, status.duration_until_reset.seconds
            assert found == (over and binding, reset_s), (model, ask, told, status)
            if not over:
                assert status.limit_remaining == remaining, (model, ask, told, status)
        assert response.overall_code == (2 if refused else 1)
        assert not (refused and room.wait_s)


@settings(max_examples=150, deadline=None)
@given(streams(KEYS, FORWARD))
def test_memory_decides_as_the_models_do(stream: list[Asked]) -> None:
    asyncio.run(replay(MemoryStore(), stream))


@settings(max_examples=100, deadline=None)
@given(streams(KEYS[len(FIXED) + 1 :], FORWARD + BACK))
def test_memory_decides_as_the_models_do_when_the_clock_goes_back(stream: list[Asked]) -> None:
    # Fixed windows stay in the latest window there, those of all counters: that has a test of its own.
    asyncio.run(replay(MemoryStore(), stream))


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


async def test_redis_decides_as_the_models_do(redis: RedisServer) -> None:
    tenants = iter(range(100_000))
    loop = asyncio.get_running_loop()
    store: Any = RedisStore(RedisTarget.parse(redis.unix_url), timeout_s=2, server_time=False)
    store.start()
    await until(lambda: store.available, what="the connection")

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(streams(KEYS, FORWARD + BACK))
    def check(stream: list[Asked]) -> None:
        work = replay(store, stream, f"-{next(tenants)}")
        asyncio.run_coroutine_threadsafe(work, loop).result(60)

    try:
        await asyncio.to_thread(check)
    finally:
        await store.close()


async def test_the_memory_of_another_worker_decides_as_the_models_do(tmp_path: Path) -> None:
    tenants = iter(range(100_000))
    loop = asyncio.get_running_loop()
    clock = Clock()
    memory = SharedMemory(clock=clock)
    await memory.serve(tmp_path / "memory.sock")
    store = SharedStore(tmp_path / "memory.sock", timeout_s=2)
    store.start()
    await until(lambda: store.available, what="the connection")

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(streams(KEYS, FORWARD))
    def check(stream: list[Asked]) -> None:
        # Counters of different lives share the memory: its clock only goes on.
        clock.now += 1000
        work = replay(store, stream, f"-{next(tenants)}", clock=clock)
        asyncio.run_coroutine_threadsafe(work, loop).result(60)

    try:
        await asyncio.to_thread(check)
    finally:
        await store.close()
        await memory.close()
