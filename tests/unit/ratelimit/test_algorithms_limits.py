# pyright: standard
"""Limits as large and as small as they can be, over any unit, by every algorithm; and exact under concurrency."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from ratelimit_service.model import MAX_LIMIT, Algorithm, Unit
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request
from tests.support.redis import RedisServer
from tests.support.waiting import until

OK, OVER = 1, 2
LIMITS = (0, 1, 7, 100_000, 10**9 + 7, MAX_LIMIT)
WINDOWS = (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET, Algorithm.LEAKY_BUCKET)


def config() -> str:
    """Every algorithm with every unit and limit."""
    lines = ["domain: d", "descriptors:"]
    for algorithm in Algorithm:
        for unit in Unit:
            for limit in LIMITS:
                if algorithm is Algorithm.CONCURRENCY and limit > 100_000:
                    continue
                more = ", delay: 60s" if algorithm is Algorithm.LEAKY_BUCKET else ""
                rule = f"unit: {unit.name.lower()}, requests_per_unit: {limit}, algorithm: {algorithm}{more}"
                lines.append(f"  - {{key: {key(algorithm, unit, limit)}, rate_limit: {{{rule}}}}}")
    return "\n".join(lines)


def key(algorithm: Algorithm, unit: Unit, limit: int) -> str:
    return f"{algorithm}-{unit.name}-{limit}".lower()


def ask(limiter: Limiter, name: str, hits: int = 1, value: str = "") -> tuple[int, int]:
    status = limiter.ask(request("d", [(name, value)], own_hits=(hits,))).response.statuses[0]
    return status.code, status.limit_remaining


@pytest.fixture(scope="module")
def limits() -> str:
    return config()


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("algorithm", WINDOWS[:3])
def test_all_of_a_limit_can_be_had_and_no_more(algorithm: Algorithm, unit: Unit, limits: str) -> None:
    limiter = Limiter(limits, MemoryStore(), clock=Clock())
    for limit in LIMITS:
        name = key(algorithm, unit, limit)
        if limit:
            assert ask(limiter, name, limit - 1) == (OK, 1)
            assert ask(limiter, name) == (OK, 0)
        assert ask(limiter, name)[0] == OVER
        assert ask(limiter, name, 0)[0] == (OVER if algorithm is Algorithm.FIXED_WINDOW else OK)
    limiter.clock.now += 2 * unit.seconds
    for limit in LIMITS[1:]:
        assert ask(limiter, key(algorithm, unit, limit), limit) == (OK, 0)


@pytest.mark.parametrize("unit", Unit)
async def test_a_queue_is_as_long_as_its_delay_lets_it_be(unit: Unit, limits: str) -> None:
    limiter = Limiter(limits, MemoryStore(), clock=Clock())
    for limit in LIMITS[1:]:
        turn_s = unit.seconds / limit
        call = RecordedCall()
        limiter.handler(request("d", [(key(Algorithm.LEAKY_BUCKET, unit, limit), "x")]), call)
        assert call.response.overall_code == OK
        expected = min(MAX_LIMIT, int(60 / turn_s))
        assert abs(call.response.statuses[0].limit_remaining - expected) <= 1


@pytest.mark.parametrize("algorithm", WINDOWS)
def test_a_client_that_waits_as_long_as_it_is_told_is_admitted(algorithm: Algorithm, limits: str) -> None:
    for unit in Unit:
        limiter = Limiter(limits.replace(", delay: 60s", ""), MemoryStore(), clock=Clock(1_800_000_000.123456))
        for limit in LIMITS[1:]:
            name, hits = key(algorithm, unit, limit), max(1, min(limit // 3, 100_000))
            for _ in range(5):
                ask(limiter, name, hits)
            status = limiter.ask(request("d", [(name, "")], own_hits=(hits,))).response.statuses[0]
            if status.code == OVER:
                before = limiter.clock.now
                limiter.clock.now += status.duration_until_reset.seconds
                assert ask(limiter, name, hits)[0] == OK, (name, before)


@pytest.mark.parametrize("algorithm", [Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET, Algorithm.LEAKY_BUCKET])
def test_refused_hits_are_not_counted(algorithm: Algorithm, limits: str) -> None:
    limiter = Limiter(limits.replace(", delay: 60s", ""), MemoryStore(), clock=Clock())
    name = key(algorithm, Unit.MINUTE, 7)
    for _ in range(1000):
        ask(limiter, name, 8)
    assert ask(limiter, name, 7)[0] == OK


@pytest.mark.parametrize("algorithm", Algorithm)
def test_hits_near_a_limit_are_counted_as_such(algorithm: Algorithm) -> None:
    rule = f"unit: day, requests_per_unit: 10, algorithm: {algorithm}"
    rule += ", delay: 60s" if algorithm is Algorithm.LEAKY_BUCKET else ""
    rule = rule.replace("day", "minute").replace("10,", "9,") if algorithm is Algorithm.LEAKY_BUCKET else rule
    limiter = Limiter(f"domain: d\ndescriptors: [{{key: k, rate_limit: {{{rule}}}}}]", MemoryStore(), clock=Clock())
    if algorithm is Algorithm.LEAKY_BUCKET:
        _hold_nobody(limiter)
    for _ in range(12):
        limiter.ask(request("d", [("k", "")]))
    stats = limiter.stats.of("d", "k")
    assert (stats.total, stats.within, stats.near, stats.over) == (12, 10, 2, 2)


def _hold_nobody(limiter: Limiter) -> None:
    def hold(call: Any, wait_s: float, finish: Any) -> None:
        limiter.handler.waiting.leave()
        finish()

    room: Any = limiter.handler.waiting
    room.hold = hold


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    target = RedisTarget.parse(redis.unix_url)
    store = RedisStore(target, timeout_s=5, server_time=False, max_pending=40_000)
    store.start()
    await until(lambda: store.available, what="the connection")
    yield store
    await store.close()


async def test_redis_and_memory_agree_on_limits_of_any_size(store: RedisStore, limits: str) -> None:
    loop = asyncio.get_running_loop()
    tenants = iter(range(100_000))
    lines = limits.replace(", delay: 60s", ", delay: 1ms").splitlines()[2:]

    async def replay(line: str, stream: list[tuple[float, int]]) -> None:
        clock, tenant = Clock(), str(next(tenants))
        name = line.partition("key: ")[2].partition(",")[0]
        yaml = f"domain: d\ndescriptors:\n{line}"
        near, far = Limiter(yaml, MemoryStore(), clock=clock), Limiter(yaml, store, clock=clock)
        _hold_nobody(near)
        _hold_nobody(far)
        began = time.monotonic()
        for wait_s, hits in stream:
            clock.now += wait_s
            named = [("dragoman.request", str(clock.now))] if name.startswith("conc") else []
            body = request("d", [(name, tenant), *named], own_hits=(hits,))
            here, there = await near.response(body), await far.response(body)
            if time.monotonic() - began > 0.5:
                # Redis goes by its own clock when it drops what has expired: ours must not stand still for long.
                return
            assert here == there, (name, hits, clock.now)

    waits = st.sampled_from([0.0, 0.0, 0.000001, 0.001, 0.7, 1.0, 59.0, 3600.0, 86400.0, 300 * 86400.0])
    hits = st.sampled_from([0, 1, 2, 6, 7, 33_333, 100_000, 2**31, MAX_LIMIT, 2**32])

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(lines), st.lists(st.tuples(waits, hits), max_size=25))
    def check(line: str, stream: list[tuple[float, int]]) -> None:
        asyncio.run_coroutine_threadsafe(replay(line, stream), loop).result(60)

    await asyncio.to_thread(check)


EXACT = """
domain: d
descriptors:
  - {key: fixed_window, rate_limit: {unit: year, requests_per_unit: 3333}}
  - {key: sliding_window, rate_limit: {unit: year, requests_per_unit: 3333, algorithm: sliding_window}}
  - {key: token_bucket, rate_limit: {unit: year, requests_per_unit: 3333, algorithm: token_bucket}}
  - {key: leaky_bucket, rate_limit: {unit: hour, requests_per_unit: 199920, algorithm: leaky_bucket, delay: 60s}}
  - {key: concurrency, rate_limit: {unit: year, requests_per_unit: 3333, algorithm: concurrency}}
"""


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_ten_thousand_concurrent_requests_admit_exactly_the_limit(
    store: RedisStore, algorithm: Algorithm
) -> None:
    limiters = [Limiter(EXACT, store, clock=Clock()) for _ in range(2)]
    for limiter in limiters:
        _hold_nobody(limiter)
    body = request("d", [(algorithm, "x")])
    calls = (limiters[number % 2].response(body) for number in range(10_000))
    found = Counter([response.overall_code for response in await asyncio.gather(*calls)])
    assert found == {OK: 3333, OVER: 6667}


async def test_concurrent_requests_of_several_limits_admit_exactly_the_least(store: RedisStore) -> None:
    limiter = Limiter(
        EXACT.replace(
            "unit: year, requests_per_unit: 3333, algorithm: t", "unit: year, requests_per_unit: 700, algorithm: t"
        ),
        store,
        clock=Clock(),
    )
    body = request("d", [("token_bucket", "x")], [("sliding_window", "x")], [("fixed_window", "x")])
    found = Counter([r.overall_code for r in await asyncio.gather(*(limiter.response(body) for _ in range(2000)))])
    assert found == {OK: 700, OVER: 1300}
    peek = await limiter.response(request("d", [("sliding_window", "x")], own_hits=(0,)))
    assert peek.statuses[0].limit_remaining == 3333 - 700


@pytest.mark.parametrize("algorithm", WINDOWS[1:3])
async def test_two_limits_of_one_request_on_one_counter_both_count(store: RedisStore, algorithm: Algorithm) -> None:
    # Joined to keys, (a, b_c) and (a_b, c) are alike.
    rule = f"rate_limit: {{unit: hour, requests_per_unit: 10, algorithm: {algorithm}}}"
    both = request("d", [("a", "b_c")], [("a_b", "c")])
    for each in (MemoryStore(), store):
        limiter = Limiter(
            f"{{domain: d, descriptors: [{{key: a, {rule}}}, {{key: a_b, {rule}}}]}}", each, clock=Clock()
        )
        codes = [(await limiter.response(both)).overall_code for _ in range(12)]
        assert codes == [OK] * 5 + [OVER] * 7


async def test_a_request_is_not_taken_for_a_place_of_another(store: RedisStore) -> None:
    rule = "{unit: hour, requests_per_unit: 2, algorithm: concurrency}"
    for each in (MemoryStore(), store):
        limiter = Limiter(f"{{domain: d, descriptors: [{{key: a, rate_limit: {rule}}}]}}", each, clock=Clock())
        wide = request("d", [("a", ""), ("dragoman.request", "x")], hits=2)
        other = request("d", [("a", ""), ("dragoman.request", "x 2")])
        assert [(await limiter.response(body)).overall_code for body in (wide, other)] == [OK, OVER]


def test_a_bucket_that_never_drains_is_told_as_ten_thousand_years() -> None:
    rule = f"{{unit: year, requests_per_unit: 1, algorithm: token_bucket, burst: {MAX_LIMIT}}}"
    limiter = Limiter(f"{{domain: d, descriptors: [{{key: a, rate_limit: {rule}}}]}}", MemoryStore(), clock=Clock())
    for code in (OK, OVER):
        (status,) = limiter.ask(request("d", [("a", "")], hits=MAX_LIMIT)).response.statuses
        assert (status.code, status.duration_until_reset.ToJsonString()) == (code, "315576000000s")
