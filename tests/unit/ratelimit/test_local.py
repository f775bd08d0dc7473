# pyright: standard, reportAttributeAccessIssue=false
"""`on_store_error: local`: what a process decides by itself while the store is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from envoy.type.v3.ratelimit_unit_pb2 import MINUTE

from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.local import Local
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.waiting import until

OK, OVER = 1, 2
CONFIG = """
domain: d
on_store_error: local
descriptors:
  - {key: window, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: bucket, rate_limit: {unit: minute, requests_per_unit: 60, algorithm: token_bucket, burst: 10}}
  - {key: sliding, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: leaky, rate_limit: {unit: minute, requests_per_unit: 12, algorithm: leaky_bucket}}
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: concurrency}}
  - {key: one, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: none, rate_limit: {unit: minute, requests_per_unit: 0}}
  - {key: shadow, rate_limit: {unit: minute, requests_per_unit: 1}, shadow_mode: true}
  - {key: deny, rate_limit: {unit: minute, requests_per_unit: 10, on_store_error: deny}}
"""


class Broken:
    """A store in memory that answers, or not."""

    def __init__(self) -> None:
        self.available = False
        self._memory = MemoryStore()

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        if self.available:
            self._memory.take(checks, now, flight)
        else:
            flight.replies = [None] * len(checks)
            flight.settle()

    async def close(self) -> None:
        """Does nothing."""


class Later:
    """Timers that a test lets run out."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, delay_s: float, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def run_out(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


class Scene:
    def __init__(self, *, replicas: int = 3, max_keys: int = 1000) -> None:
        self.later = Later()
        self.store = Broken()
        self.local = Local(replicas=replicas, max_keys=max_keys, later=self.later)
        self.limiter = Limiter(CONFIG, self.store, clock=Clock(), local=self.local)

    def ask(self, *keys: str, value: str = "x", **given: Any) -> Any:
        return self.limiter.ask(request("d", *([(key, value)] for key in keys), **given)).response

    def codes(self, key: str, times: int) -> list[int]:
        return [self.ask(key).overall_code for _ in range(times)]


@pytest.mark.parametrize(
    ("key", "let_through"),
    [("window", 4), ("bucket", 4), ("sliding", 4), ("flight", 4), ("leaky", 1), ("one", 1), ("none", 0)],
)
def test_each_replica_lets_through_its_part_of_a_limit_rounded_up(key: str, let_through: int) -> None:
    assert Scene().codes(key, 8) == [OK] * let_through + [OVER] * (8 - let_through)


def test_a_bucket_is_filled_at_the_part_of_the_rate() -> None:
    scene = Scene()
    assert scene.codes("bucket", 5) == [OK] * 4 + [OVER]
    scene.limiter.clock.now += 3
    # 60 a minute by three replicas: one token in three seconds.
    assert scene.codes("bucket", 2) == [OK, OVER]


def test_a_leaky_bucket_leaks_at_the_part_of_the_rate() -> None:
    scene = Scene()
    assert scene.codes("leaky", 2) == [OK, OVER]
    scene.limiter.clock.now += 15
    # 12 a minute by three replicas: one in fifteen seconds.
    assert scene.codes("leaky", 2) == [OK, OVER]


def test_what_ends_makes_room_here_too() -> None:
    scene = Scene()

    def flight(caller: str, *more: tuple[str, str]) -> int:
        entries = [("flight", "x"), ("dragoman.request", caller), *more]
        return scene.limiter.ask(request("d", entries)).response.overall_code

    assert [flight(caller) for caller in "abcde"] == [OK] * 4 + [OVER]
    flight("b", ("dragoman.done", "1"))
    assert [flight(caller) for caller in "ef"] == [OK, OVER]


def test_clients_are_told_the_limit_that_was_agreed_and_what_is_left_here() -> None:
    response = Scene().ask("window")
    (status,) = response.statuses
    assert (status.current_limit.requests_per_unit, status.limit_remaining) == (10, 3)
    headers = {each.key: each.value for each in response.response_headers_to_add}
    assert headers["x-ratelimit-limit"] == "10, 10;w=60"
    assert headers["x-ratelimit-remaining"] == "3"


def test_a_refusal_looks_like_one_of_the_limit() -> None:
    scene = Scene()
    scene.codes("window", 4)
    response = scene.ask("window")
    assert b"rate_limited" in response.raw_body
    assert response.statuses[0].duration_until_reset.seconds > 0


def test_limits_of_one_request_follow_each_its_own_way() -> None:
    scene = Scene()
    assert [s.code for s in scene.ask("window", "deny").statuses] == [OK, OVER]
    assert [s.code for s in scene.ask("window", "one").statuses] == [OK, OK]
    assert [s.code for s in scene.ask("window", "one").statuses] == [OK, OVER]
    assert scene.ask("shadow").overall_code == OK
    assert scene.ask("shadow").overall_code == OK


def test_hits_and_peeks_count_as_they_do_in_the_store() -> None:
    scene = Scene()
    assert scene.ask("window", own_hits=[0]).statuses[0].limit_remaining == 4
    assert scene.ask("window", hits=3).statuses[0].limit_remaining == 1
    assert scene.ask("window", hits=2).overall_code == OVER


def test_what_was_over_when_the_store_went_stays_over() -> None:
    scene = Scene()
    scene.store.available = True
    assert scene.codes("window", 11) == [OK] * 10 + [OVER]
    scene.store.available = False
    assert scene.codes("window", 2) == [OVER] * 2
    assert scene.local.decided == 0


def test_the_store_decides_again_when_it_is_back() -> None:
    scene = Scene()
    assert scene.codes("one", 2) == [OK, OVER]
    scene.store.available = True
    assert scene.codes("one", 2) == [OK, OVER]


def test_a_store_that_comes_and_goes_gives_nobody_another_share() -> None:
    scene = Scene()
    assert scene.codes("window", 4) == [OK] * 4
    scene.store.available = True
    scene.codes("bucket", 1)
    scene.store.available = False
    assert scene.codes("window", 2) == [OVER] * 2


def test_counts_are_dropped_when_none_was_needed_for_a_while() -> None:
    scene = Scene()
    scene.codes("window", 5)
    assert scene.local.keys == 1
    scene.later.run_out()
    assert scene.local.keys == 1
    scene.later.run_out()
    assert (scene.local.keys, scene.later.waiting) == (0, [])
    assert scene.codes("window", 5) == [OK] * 4 + [OVER]


def test_more_keys_than_there_is_room_for_are_let_through() -> None:
    scene = Scene(max_keys=2)
    codes = [scene.ask("one", value=value).overall_code for value in "abc" for _ in range(2)]
    assert codes == [OK, OVER, OK, OVER, OK, OK]
    assert scene.local.keys == 2


def test_metrics_tell_what_the_store_did_not_judge_and_what_came_of_it() -> None:
    scene = Scene()
    scene.codes("window", 6)
    counts = dict(scene.limiter.stats.items())["d", "window"]
    assert (counts.errors, counts.total, counts.within, counts.over) == (6, 6, 4, 2)


@pytest.mark.parametrize("key", ["window", "bucket", "sliding", "flight"])
def test_another_number_of_replicas_counts_at_once_against_what_was_let_through(key: str) -> None:
    scene = Scene(replicas=5)
    assert scene.codes(key, 2) == [OK] * 2
    scene.local.divide_among(2)
    assert scene.codes(key, 4) == [OK] * 3 + [OVER]
    scene.local.divide_among(10)
    assert scene.codes(key, 1) == [OVER]


def test_the_workers_of_a_replica_divide_its_part() -> None:
    scene = Scene()
    scene.local = Local(replicas=1, processes=5, later=scene.later)
    scene.limiter = Limiter(CONFIG, scene.store, clock=Clock(), local=scene.local)
    assert scene.codes("window", 3) == [OK] * 2 + [OVER]


async def test_the_event_loop_drops_the_counts() -> None:
    local = Local(keep_s=0.01)
    limiter = Limiter(CONFIG, Broken(), clock=Clock(), local=local)
    limiter.ask(request("d", [("window", "x")]))
    assert local.keys == 1
    await until(lambda: not local.keys, what="the counts to be dropped")


def test_limits_that_requests_bring_follow_their_domain() -> None:
    scene = Scene()
    message = rls_pb2.RateLimitRequest.FromString(request("d", [("brought", "x")]))
    message.descriptors[0].limit.requests_per_unit = 5
    message.descriptors[0].limit.unit = MINUTE
    body = message.SerializeToString()
    codes = [scene.limiter.ask(body).response.overall_code for _ in range(4)]
    assert codes == [OK] * 2 + [OVER] * 2
