# pyright: standard, reportAttributeAccessIssue=false
"""Hits that requests give back (`is_negative_hits`): what was reserved and not used is there again, and never more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio as redis_client
from envoy.service.ratelimit.v3 import rls_pb2

from dragoman.grpc_worker import StatusCode
from ratelimit_service import hits
from ratelimit_service.planner import DOUBTED_S
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.leases import LeaseStore
from ratelimit_service.stores.local import Local
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.redis import RedisServer
from tests.support.waiting import until

OK, OVER = 1, 2
KINDS = ("fixed", "sliding", "bucket", "queue")
CONFIG = """
domain: d
descriptors:
  - {key: fixed, rate_limit: {unit: day, requests_per_unit: 10}}
  - {key: sliding, rate_limit: {unit: day, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 10, algorithm: token_bucket}}
  - {key: queue, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: leaky_bucket, delay: 54s}}
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: concurrency}}
  - {key: told, rate_limit: {unit: day, requests_per_unit: 10}, detailed_metric: true}
  - {key: strict, rate_limit: {unit: day, requests_per_unit: 10, on_store_error: deny}}
  - {key: local, rate_limit: {unit: day, requests_per_unit: 10, on_store_error: local}}
  - {key: leased, rate_limit: {unit: day, requests_per_unit: 100, precision: lease(20)}}
"""


class Down(MemoryStore):
    """Answers nothing."""

    def count(self, check: Any, key: bytes, now: float) -> int | None:
        return None


def limiter(store: Store | None = None, **options: Any) -> Limiter:
    return Limiter(CONFIG, store or MemoryStore(), clock=Clock(1_800_000_090.0), **options)


def asks(key: str, value: str = "a") -> Callable[[int], bytes]:
    return lambda hits: request("d", [(key, value)], own_hits=[hits])


def answer(asked: Limiter, body: bytes) -> tuple[int, int]:
    """What a request is answered, and how much is left."""
    response = asked.ask(body).response
    return response.overall_code, response.statuses[0].limit_remaining


@pytest.mark.parametrize("key", KINDS[:3])
def test_what_is_given_back_can_be_taken_again(key: str) -> None:
    asked, take = limiter(), asks(key)
    assert answer(asked, take(10)) == (OK, 0)
    assert answer(asked, take(1))[0] == OVER
    # A fixed window counts what it refuses, too.
    back = 5 if key == "fixed" else 4
    assert answer(asked, take(-back)) == (OK, 4)
    assert answer(asked, take(4)) == (OK, 0)
    assert answer(asked, take(1))[0] == OVER


async def test_turns_that_are_given_back_make_the_queue_shorter() -> None:
    asked, take = limiter(), asks("queue")
    for _ in range(10):
        asked.ask(take(1))
    assert asked.ask(take(1)).response.overall_code == OVER
    assert answer(asked, take(-3)) == (OK, 3)
    for _ in range(3):
        asked.ask(take(1))
    assert asked.ask(take(1)).response.overall_code == OVER


@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("many", [1, 3, 2**40])
def test_nobody_gathers_more_than_the_limit(key: str, many: int) -> None:
    asked, take = limiter(), asks(key)
    full = 10
    for _ in range(3):
        assert answer(asked, take(-many)) == (OK, full)
    asked.ask(take(2))
    for _ in range(3):
        assert answer(asked, take(-many))[1] <= full
    assert answer(asked, take(11))[0] == OVER


@pytest.mark.parametrize("key", ["fixed", "sliding"])
def test_a_new_window_owes_nothing_for_the_one_before(key: str) -> None:
    asked, take = limiter(), asks(key)
    asked.ask(take(10))
    asked.clock.now += 2 * 86400
    asked.ask(take(1))
    assert answer(asked, take(-10)) == (OK, 10)
    assert answer(asked, take(0)) == (OK, 10)


def test_a_sliding_window_takes_off_the_window_before_what_this_one_has_not_got() -> None:
    asked, take = limiter(), asks("sliding")
    asked.ask(take(10))
    asked.clock.now += 86400 - asked.clock.now % 86400
    assert answer(asked, take(0)) == (OK, 0)
    assert answer(asked, take(-4)) == (OK, 4)


def test_a_request_without_a_number_gives_one_back() -> None:
    asked, take = limiter(), asks("bucket")
    asked.ask(take(5))
    descriptor = rls_pb2.RateLimitRequest.FromString(request("d", [("bucket", "a")])).descriptors[0]
    negative = descriptor.SerializeToString() + b"\x20\x01"
    body = b"\x0a\x01d\x12" + bytes([len(negative)]) + negative
    assert answer(asked, body) == (OK, 6)
    # With a hits_addend of the request.
    assert answer(asked, body + b"\x18\x03") == (OK, 9)


def test_what_is_given_back_is_so_whatever_the_other_limits_say() -> None:
    asked, fixed, bucket = limiter(), asks("fixed"), asks("bucket")
    asked.ask(bucket(10))
    asked.ask(fixed(10))
    both = request("d", [("bucket", "a")], [("sliding", "a")], [("fixed", "a")], own_hits=[-6, 2, 3])
    response = asked.ask(both).response
    assert response.overall_code == OVER
    assert [status.code for status in response.statuses] == [OK, OK, OVER]
    assert [status.limit_remaining for status in response.statuses] == [6, 10, 0]
    assert answer(asked, bucket(0)) == (OK, 6)


def test_a_request_that_takes_and_gives_back_on_one_counter_does_so_in_one() -> None:
    asked, bucket = limiter(), asks("bucket")
    asked.ask(bucket(8))
    entries = [("bucket", "a")]
    response = asked.ask(request("d", entries, entries, own_hits=[9, -8])).response
    assert [status.limit_remaining for status in response.statuses] == [1, 1]
    assert asked.ask(request("d", entries, entries, own_hits=[3, -3])).response.overall_code == OK
    assert answer(asked, bucket(0)) == (OK, 1)


def test_what_is_in_flight_is_given_back_by_saying_that_it_ended() -> None:
    asked = limiter()
    who = [("dragoman.request", "x"), ("flight", "a")]
    assert asked.ask(request("d", who)).response.statuses[0].limit_remaining == 9
    code, message = asked.ask(request("d", who, own_hits=[-1])).failure or (None, "")
    assert code is StatusCode.INVALID_ARGUMENT
    assert "dragoman.done" in message
    ended = request("d", [*who, ("dragoman.done", "1")], own_hits=[-1])
    assert asked.ask(ended).response.statuses[0].limit_remaining == 10


def test_counts_of_hits_never_go_down_and_what_is_given_back_has_a_count_of_its_own() -> None:
    asked, take = limiter(), asks("bucket")
    for each in (10, 3, -4, -7, 0):
        asked.ask(take(each))
    counts = asked.stats.of("d", "bucket")
    assert (counts.total, counts.within, counts.over, counts.given_back, counts.errors) == (13, 10, 3, 11, 0)
    assert "given_back" in hits.HITS


@pytest.mark.parametrize("key", ["fixed", "told"])
def test_another_worker_that_has_heard_of_it_believes_for_a_second_that_a_limit_is_over(key: str) -> None:
    store, take = MemoryStore(), asks(key)
    here, there = limiter(store), limiter(store)
    there.clock = here.clock
    there.handler._clock = here.clock
    there.ask(take(11))
    assert there.ask(take(1)).response.overall_code == OVER
    here.ask(take(-11))
    # Nobody has told it: it goes by what it saw, until the window ends.
    assert there.ask(take(1)).response.overall_code == OVER
    # Once it has been given back any hits of that rule, it asks.
    there.ask(asks(key, "other")(-1))
    assert there.ask(take(9)).response.overall_code == OK
    assert there.ask(take(9)).response.overall_code == OVER
    here.ask(take(-18))
    assert there.ask(take(1)).response.overall_code == OVER
    here.clock.now += DOUBTED_S
    assert there.ask(take(1)).response.overall_code == OK


def test_without_its_store_nothing_is_given_back_and_nobody_refused() -> None:
    asked, take = limiter(Down()), asks("strict")
    assert asked.ask(take(1)).response.overall_code == OVER
    assert asked.ask(take(-5)).response.overall_code == OK
    counts = asked.stats.of("d", "strict")
    assert (counts.given_back, counts.errors) == (0, 6)


def test_the_local_estimate_takes_what_is_given_back() -> None:
    asked, take = limiter(Down(), local=Local(replicas=2, later=lambda *_: None)), asks("local")
    assert answer(asked, take(5)) == (OK, 0)
    assert answer(asked, take(-2)) == (OK, 2)
    assert answer(asked, take(-9)) == (OK, 5)


async def test_what_is_given_back_to_a_limit_with_leases_goes_to_the_store() -> None:
    memory = MemoryStore()
    leases = LeaseStore(memory, clock=lambda: 1_800_000_090.0)
    asked, take = limiter(memory, leases=leases), asks("leased")
    assert (await asked.response(take(60))).overall_code == OK
    exact = limiter(memory)
    counted = 100 - answer(exact, take(0))[1]
    assert counted >= 60
    assert (await asked.response(take(-40))).statuses[0].limit_remaining == 140 - counted
    await leases.close()


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with RedisServer() as running:
        yield running


async def test_redis_keeps_a_window_at_zero_and_forgets_it(server: RedisServer) -> None:
    store = RedisStore(RedisTarget.parse(server.unix_url), timeout_s=2)
    store.start()
    await until(lambda: store.available, what="the connection")
    asked, take = limiter(store), asks("fixed")
    try:
        first = await asked.response(take(-3))
        assert (first.overall_code, first.statuses[0].limit_remaining) == (OK, 10)
        assert (await asked.response(take(4))).statuses[0].limit_remaining == 6
        async with redis_client.from_url(server.url) as client:
            (key,) = await client.keys("d_fixed_a_*")
            assert 0 < await client.ttl(key) <= 86400
        many = [asyncio.create_task(asked.response(take(-1))) for _ in range(20)]
        await asyncio.gather(*many)
        assert (await asked.response(take(10))).statuses[0].limit_remaining == 0
        assert (await asked.response(take(1))).overall_code == OVER
    finally:
        await store.close()
