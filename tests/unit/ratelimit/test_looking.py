# pyright: standard
"""With `look_first`, of a request of which one limit is over, the others count nothing (recordings: `looking`)."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.leases import LeaseStore
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from ratelimit_service.stores.split import SplitStore
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.redis import RedisServer
from tests.support.waiting import until

OK, OVER = 1, 2
CONFIG = """
domain: d
descriptors:
  - {key: small, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: large, rate_limit: {unit: day, requests_per_unit: 10, on_store_error: deny}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 10}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 10, algorithm: token_bucket}}
  - {key: leased, rate_limit: {unit: day, requests_per_unit: 10, precision: lease(5)}}
"""
BOTH = request("d", [("small", "a")], [("large", "a")])


class Asked:
    """A store in memory that notes the hits of each question; from the question `lost_from` on it has no answer."""

    available = True

    def __init__(self, *, lost_from: int = 1_000) -> None:
        self.hits: list[list[int]] = []
        self._lost_from = lost_from
        self._memory = MemoryStore()

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        self.hits.append([check.hits for check in checks])
        if len(self.hits) > self._lost_from:
            flight.replies = [None] * len(checks)
            flight.settle()
        else:
            self._memory.take(checks, now, flight)

    async def close(self) -> None:
        pass


def limiter(store: Asked, **options: bool) -> Limiter:
    return Limiter(CONFIG, store, clock=Clock(), **({"looks_first": True} | options))  # type: ignore[arg-type]


def left(given: Limiter, key: str) -> int:
    """What is left of a limit; asking counts nothing."""
    return given.ask(request("d", [(key, "a")], own_hits=[0])).response.statuses[0].limit_remaining


def test_a_request_that_one_limit_refuses_is_not_counted_by_the_others() -> None:
    given = limiter(Asked())
    assert [given.ask(BOTH).response.overall_code for _ in range(5)] == [OK, OK, OVER, OVER, OVER]
    assert left(given, "large") == 8
    # Where nothing is looked at first they all count.
    plain = limiter(Asked(), looks_first=False)
    assert [plain.ask(BOTH).response.overall_code for _ in range(5)] == [OK, OK, OVER, OVER, OVER]
    assert left(plain, "large") == 5


def test_what_is_told_of_the_others_is_what_they_stand_at() -> None:
    given = limiter(Asked())
    for _ in range(3):
        given.ask(BOTH)
    response = given.ask(BOTH).response
    assert [(each.code, each.limit_remaining) for each in response.statuses] == [(OVER, 0), (OK, 8)]
    assert given.stats.of("d", "large").total == 4


def test_a_request_with_one_limit_is_asked_about_once() -> None:
    store = Asked()
    given = limiter(store)
    given.ask(request("d", [("small", "a")]))
    given.ask(request("d", [("small", "b")], [("none", "b")]))
    assert store.hits == [[1], [1]]


def test_what_is_known_to_be_over_is_not_asked_about_and_the_others_only_looked_at() -> None:
    store = Asked()
    given = limiter(store)
    for _ in range(4):
        given.ask(BOTH)
    # Looked at and counted, twice; looked at, and counted by the one that is over; looked at.
    assert store.hits == [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0], [1, 0], [0]]


def test_a_store_that_is_lost_between_looking_and_counting_is_answered_limit_by_limit() -> None:
    given = limiter(Asked(lost_from=1))
    response = given.ask(BOTH).response
    # `small` allows and `large` denies while its store cannot be asked.
    assert [each.code for each in response.statuses] == [OK, OVER]
    assert response.overall_code == OVER


def test_a_store_that_is_lost_before_that_too() -> None:
    given = limiter(Asked(lost_from=0))
    assert [each.code for each in given.ask(BOTH).response.statuses] == [OK, OVER]


def test_limits_beside_another_algorithm_count_as_they_do_without() -> None:
    given = limiter(Asked())
    body = request("d", [("small", "a")], [("large", "a")], [("bucket", "a")])
    assert [given.ask(body).response.overall_code for _ in range(4)] == [OK, OK, OVER, OVER]
    # The bucket counts only what is admitted, fixed windows all that comes.
    assert (left(given, "bucket"), left(given, "large")) == (8, 6)


def test_limits_with_leases_count_as_they_do_without() -> None:
    # The store counts leased hits before they are used, so looking at it would not tell what is over.
    store = MemoryStore()
    given = Limiter(CONFIG, store, clock=Clock(), leases=LeaseStore(store), looks_first=True)
    body = request("d", [("leased", "a")], [("large", "a")])
    assert [given.ask(body).response.overall_code for _ in range(10)] == [OK] * 10
    assert left(given, "large") == 0


async def test_limits_in_two_stores_are_looked_at_in_both() -> None:
    async with RedisServer() as one, RedisServer() as two:
        stores = [RedisStore(RedisTarget.parse(each.unix_url), timeout_s=5.0) for each in (one, two)]
        for each in stores:
            each.start()
        store = SplitStore(per_second=stores[0], rest=stores[1])
        await until(lambda: store.available, what="the connections to Redis")
        given = Limiter(CONFIG, store, clock=Clock(), looks_first=True)
        body = request("d", [("second", "a")], [("small", "a")])
        assert [(await given.response(body)).overall_code for _ in range(5)] == [OK, OK, OVER, OVER, OVER]
        looked = await given.response(request("d", [("second", "a")], own_hits=[0]))
        assert looked.statuses[0].limit_remaining == 8
        await store.close()
