# pyright: standard
"""A limit is edited while there are counters: they are read as what they are, and nobody waits for what was larger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from dragoman.protos.ratelimit.config.ratelimit.v3.rls_conf_pb2 import RateLimitConfig
from ratelimit_service.config_xds import parse_resource
from ratelimit_service.handler import RateLimiter
from ratelimit_service.model import Config, Unit
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request, request_that_brings
from tests.support.redis import RedisServer
from tests.support.waiting import until

OK, OVER = 1, 2
bringing = partial(request_that_brings, "d", unit=Unit.HOUR)
LARGE, SMALL = 1000, 10
ALGORITHMS = ("fixed_window", "sliding_window", "token_bucket", "leaky_bucket")


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with RedisServer() as server:
        store = RedisStore(RedisTarget.parse(server.unix_url), timeout_s=5, server_time=False)
        store.start()
        await until(lambda: store.available, what="the connection")
        yield store
        await store.close()


def limit(algorithm: str, per_unit: int, *, unit: str = "minute", more: str = "") -> str:
    rule = f"unit: {unit}, requests_per_unit: {per_unit}, algorithm: {algorithm}{more}"
    return f"domain: d\ndescriptors: [{{key: k, rate_limit: {{{rule}}}}}]"


async def asked(limiter: Limiter, hits: int = 1) -> Any:
    (status,) = (await limiter.response(request("d", [("k", "x")], own_hits=(hits,)))).statuses
    return status


@pytest.mark.parametrize("after", ALGORITHMS)
@pytest.mark.parametrize("before", ALGORITHMS)
async def test_who_has_used_up_a_limit_that_is_made_smaller_waits_no_longer_than_the_smaller_one_asks(
    store: Store, before: str, after: str
) -> None:
    limiter = Limiter(limit(before, LARGE), store, clock=Clock())
    assert (await asked(limiter, LARGE)).code == OK
    limiter.use(limit(after, SMALL))
    status = await asked(limiter, SMALL)
    if before == after:
        assert status.code == OVER, "what was counted stays counted"
    if status.code == OVER:
        assert status.duration_until_reset.seconds <= 120
        limiter.clock.now += status.duration_until_reset.seconds
        assert (await asked(limiter)).code == OK


@pytest.mark.parametrize(
    ("algorithm", "before", "after"),
    [("token_bucket", ", burst: 1000", ", burst: 10"), ("leaky_bucket", ", delay: 60s", ", delay: 1s")],
)
async def test_a_bucket_that_an_edit_makes_smaller_is_full_and_no_more(
    store: Store, algorithm: str, before: str, after: str
) -> None:
    limiter = Limiter(limit(algorithm, SMALL, unit="second", more=before), store, clock=Clock())
    # A leaky bucket admits what is before others in time: the last one may have it hold more.
    for _ in range(60):
        limiter.ask(request("d", [("k", "x")], own_hits=(SMALL,)))
    limiter.use(limit(algorithm, 1, unit="second", more=after))
    status = await asked(limiter)
    assert status.code == OVER
    assert status.duration_until_reset.seconds <= 2


@pytest.mark.parametrize("clock_ahead_s", [0, 86400])
async def test_who_is_in_flight_by_a_longer_lease_is_so_for_no_longer_than_a_new_one(
    store: Store, clock_ahead_s: int
) -> None:
    begun = Clock()
    limiter = Limiter(limit("concurrency", 1, unit="hour"), store, clock=begun)
    begun.now += clock_ahead_s
    assert (await asked(limiter)).code == OK
    begun.now -= clock_ahead_s
    limiter.use(limit("concurrency", 1, more=", lease_time: 5s"))
    assert (await asked(limiter)).code == OVER
    begun.now += 4
    assert (await asked(limiter, 0)).limit_remaining == 0
    begun.now += 1
    assert (await asked(limiter)).code == OK


def test_limits_that_requests_bring_to_a_bucket_make_no_room_for_one_another() -> None:
    fields = {"key": "k", "rate_limit": {"unit": "HOUR", "requests_per_unit": SMALL}}
    fields["rate_limit"]["dragoman"] = {"algorithm": "TOKEN_BUCKET"}
    message = ParseDict({"domain": "d", "descriptors": [fields], "dragoman": {"refines": True}}, RateLimitConfig())
    domain, faults = parse_resource(message.SerializeToString(), source="d")
    assert domain is not None
    assert not faults
    clock, stats = Clock(), StatsRegistry()
    handler = RateLimiter(MemoryStore(), stats, clock=clock)
    handler.use(Planner(Config({"d": domain}), stats))

    def code(body: bytes) -> int:
        handler(body, call := RecordedCall())
        return call.response.overall_code

    plain = request("d", [("k", "x")])
    large, small = (bringing([("k", "x")], per_unit=number) for number in (LARGE, SMALL))
    assert [code(large) for _ in range(LARGE + 1)].count(OK) == LARGE
    for body in (small, plain):
        clock.now += 360
        assert [code(body) for _ in range(3)] == [OVER] * 3
    assert [code(large) for _ in range(300)].count(OK) == 200, "what has come back by now"
