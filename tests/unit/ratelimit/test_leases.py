# pyright: standard
"""Leases over a store that answers when a test lets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ratelimit_service.checks import Check
from ratelimit_service.model import Algorithm, Rule, Unit
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.leases import LeaseStore
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request

OK, OVER = 1, 2
CONFIG = """
domain: d
descriptors:
  - {key: window, rate_limit: {unit: minute, requests_per_unit: 100, precision: lease(10), on_store_error: deny}}
  - {key: large, rate_limit: {unit: day, requests_per_unit: 100000, precision: lease(100)}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 100, algorithm: token_bucket, precision: lease(10)}}
  - {key: sliding, rate_limit: {unit: day, requests_per_unit: 100, algorithm: sliding_window, precision: lease(10)}}
  - {key: exact, rate_limit: {unit: minute, requests_per_unit: 100}}
  - {key: queue, rate_limit: {unit: second, requests_per_unit: 100, algorithm: leaky_bucket}}
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 1, algorithm: concurrency}}
"""
LIMIT, LEASE = 100, 10
ALGORITHMS = ["window", "bucket", "sliding"]


class SlowMemory:
    """A store in memory whose answers come when `answer` is called, at once if it is not `slow`."""

    available = True

    def __init__(self, *, slow: bool = False) -> None:
        self.slow = slow
        self.broken = False
        self.asked: list[int] = []
        self._memory = MemoryStore()
        self._waiting: list[tuple[Sequence[Check], float, Flight]] = []

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        self.asked += [check.hits for check in checks]
        self._waiting.append((checks, now, flight))
        if not self.slow:
            self.answer()

    def answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for checks, now, flight in waiting:
            if self.broken:
                flight.replies = [None] * len(checks)
                flight.settle()
            else:
                self._memory.take(checks, now, flight)

    async def close(self) -> None:
        """Does nothing."""


def worker(store: SlowMemory, clock: Clock) -> Limiter:
    return Limiter(CONFIG, store, clock=clock, leases=LeaseStore(store, clock=clock))


def ask(limiter: Limiter, key: str, times: int = 1, **given: Any) -> list[RecordedCall]:
    body = request("d", [(key, "x")], **given)
    return [limiter.ask(body) for _ in range(times)]


def codes(calls: Sequence[RecordedCall]) -> list[int]:
    return [call.response.overall_code for call in calls]


def test_one_worker_admits_exactly_the_limit() -> None:
    for key in ALGORITHMS:
        limiter = worker(SlowMemory(), Clock())
        assert codes(ask(limiter, key, 130)) == [OK] * 100 + [OVER] * 30


def test_the_store_is_asked_once_for_many_hits() -> None:
    store = SlowMemory()
    assert codes(ask(worker(store, Clock()), "large", 10_000)) == [OK] * 10_000
    assert len(store.asked) < 200
    assert max(store.asked) <= 100


def test_concurrent_requests_wait_for_one_refill_which_is_for_all_of_them() -> None:
    store = SlowMemory(slow=True)
    limiter = worker(store, Clock())
    calls = ask(limiter, "window", 60)
    assert len(store.asked) == 1
    store.answer()
    assert len(store.asked) == 2
    store.answer()
    assert codes(calls) == [OK] * 60
    assert 59 <= sum(store.asked) <= 60 + LEASE


def test_more_is_taken_before_the_lease_is_used_up_and_nobody_waits() -> None:
    store = SlowMemory()
    limiter = worker(store, Clock())
    ask(limiter, "large", 1000)
    store.slow = True
    asked = len(store.asked)
    calls: list[RecordedCall] = []
    while len(store.asked) == asked:
        calls += ask(limiter, "large")
    # It is on its way, and there is still some left.
    calls += ask(limiter, "large", 20)
    assert codes(calls) == [OK] * len(calls)


def test_leases_grow_where_hits_come_fast_and_shrink_where_they_do_not() -> None:
    store, clock = SlowMemory(), Clock()
    limiter = worker(store, clock)
    for _ in range(20):
        clock.now += 15
        ask(limiter, "large")
    assert max(store.asked) <= 2
    ask(limiter, "large", 2000)
    assert max(store.asked) >= 75


def test_the_last_part_of_a_limit_is_taken_bit_by_bit() -> None:
    store = SlowMemory()
    ask(worker(store, Clock()), "window", 110)
    last = store.asked[-6:]
    assert max(last) <= 2, store.asked


def test_what_a_request_brings_is_taken_whole_or_not() -> None:
    limiter = worker(SlowMemory(), Clock())
    for key in ALGORITHMS:
        assert codes(ask(limiter, key, 3, hits=30)) == [OK] * 3
        assert codes(ask(limiter, key, 1, hits=30)) == [OVER]


@pytest.mark.parametrize("key", ["bucket", "sliding"])
def test_small_requests_have_what_a_big_one_could_not_have(key: str) -> None:
    limiter = worker(SlowMemory(), Clock())
    assert codes(ask(limiter, key, 1, hits=95)) == [OK]
    assert codes(ask(limiter, key, 1, hits=20)) == [OVER]
    assert codes(ask(limiter, key, 6)) == [OK] * 5 + [OVER]


@pytest.mark.parametrize("key", ALGORITHMS)
def test_requests_of_all_sizes_that_wait_together_are_each_told_what_holds_for_it(key: str) -> None:
    store = SlowMemory(slow=True)
    limiter = worker(store, Clock())
    calls = [call for hits in (60, 30, 20, 8, 4, 1, 1, 1) for call in ask(limiter, key, hits=hits)]
    for _ in range(16):
        store.answer()
    admitted = [hits for hits, call in zip((60, 30, 20, 8, 4, 1, 1, 1), calls, strict=True) if codes([call]) == [OK]]
    assert sum(admitted) <= LIMIT
    if key != "window":
        assert admitted == [60, 30, 8, 1, 1]


def test_a_lease_slides_on_with_its_window() -> None:
    clock = Clock()
    limiter = worker(SlowMemory(), clock)
    assert codes(ask(limiter, "sliding", 100)) == [OK] * 100
    clock.now += 86400
    # Of the day before a part still counts, which is less and less.
    clock.now += 86400 / 4 - clock.now % 86400
    assert codes(ask(limiter, "sliding", 30)) == [OK] * 25 + [OVER] * 5


def test_looking_takes_nothing() -> None:
    store = SlowMemory()
    limiter = worker(store, Clock())
    (call,) = ask(limiter, "window", own_hits=[0])
    assert call.response.statuses[0].limit_remaining == 100
    assert store.asked == [0]
    ask(limiter, "window", 40)
    asked = len(store.asked)
    (call,) = ask(limiter, "window", own_hits=[0])
    assert 50 <= call.response.statuses[0].limit_remaining <= 70
    assert len(store.asked) == asked or store.asked[-1] == 0


def test_what_remains_goes_down_hit_by_hit() -> None:
    calls = ask(worker(SlowMemory(), Clock()), "window", 101)
    assert [call.response.statuses[0].limit_remaining for call in calls] == [*range(99, -1, -1), 0]


def test_a_lease_ends_with_its_window() -> None:
    clock = Clock()
    store = SlowMemory()
    limiter = worker(store, clock)
    assert codes(ask(limiter, "window", 95)) == [OK] * 95
    clock.now += 60
    assert codes(ask(limiter, "window", 101)) == [OK] * 100 + [OVER]


def test_a_refill_that_comes_in_the_next_window_serves_only_who_asked_in_the_last() -> None:
    clock = Clock()
    store = SlowMemory(slow=True)
    limiter = worker(store, clock)
    clock.now += 59.9
    early = ask(limiter, "window", 1)
    clock.now += 0.2
    late = ask(limiter, "window", 3)
    store.answer()
    assert codes(early) == [OK]
    assert [call.body for call in late] == [None] * 3
    store.answer()
    assert codes(late) == [OK] * 3
    store.slow = False
    assert codes(ask(limiter, "window", 98)) == [OK] * 97 + [OVER]


def test_several_limits_of_a_request_are_asked_side_by_side() -> None:
    store = SlowMemory()
    limiter = worker(store, Clock())
    body = request("d", [("window", "x")], [("exact", "x")], [("unknown", "x")])
    answers = [limiter.ask(body).response for _ in range(120)]
    assert [answer.overall_code for answer in answers] == [OK] * 100 + [OVER] * 20
    assert [status.code for status in answers[-1].statuses] == [OVER, OVER, OK]


def test_a_limit_without_leases_that_alone_is_left_to_ask_is_counted_exactly() -> None:
    store, clock = SlowMemory(), Clock()
    limiter = worker(store, clock)
    assert codes([*ask(limiter, "window", hits=LIMIT), *ask(limiter, "window")]) == [OK, OVER]
    both = request("d", [("window", "x")], [("exact", "x")])
    del store.asked[:]
    answers = [limiter.ask(both).response for _ in range(5)]
    assert [answer.statuses[1].limit_remaining for answer in answers] == [99, 98, 97, 96, 95]
    assert store.asked == [1] * 5


def test_a_request_may_give_back_to_a_limit_without_leases_and_take_from_one_with_them() -> None:
    limiter = worker(SlowMemory(), Clock())
    assert codes(ask(limiter, "queue", times=2)) == [OK, OVER]
    body = request("d", [("window", "x")], [("queue", "x")], own_hits=(None, -1))
    assert limiter.ask(body).response.overall_code == OK
    assert codes(ask(limiter, "queue")) == [OK]


def test_a_call_that_has_left_gives_up_its_place_in_flight_beside_a_limit_with_leases() -> None:
    limiter = worker(SlowMemory(), Clock())
    body = request("d", [("window", "x")], [("flight", "x")])
    left = RecordedCall()
    left.cancelled = True
    limiter.handler(body, left)
    assert codes([limiter.ask(body) for _ in range(2)]) == [OK, OVER]


def test_when_the_store_fails_what_is_left_is_used_and_the_rest_follows_on_store_error() -> None:
    store = SlowMemory()
    limiter = worker(store, Clock())
    ask(limiter, "window", 30)
    store.broken = True
    found = codes(ask(limiter, "window", 20))
    allowed = found.count(OK)
    assert 0 < allowed <= LEASE
    assert found == [OK] * allowed + [OVER] * (20 - allowed)
    store.broken = False
    assert codes(ask(limiter, "window", 1)) == [OK]


def test_who_waits_when_the_store_fails_is_answered() -> None:
    store = SlowMemory(slow=True)
    store.broken = True
    limiter = worker(store, Clock())
    calls = ask(limiter, "window", 50)
    store.answer()
    assert codes(calls) == [OVER] * 50
    assert b"rate_limit_unavailable" in calls[0].response.raw_body


async def test_what_a_worker_has_not_used_is_given_back_when_it_ends() -> None:
    store, clock = SlowMemory(), Clock()
    leases = LeaseStore(store, clock=clock)
    limiter = Limiter(CONFIG, store, clock=clock, leases=leases)
    ask(limiter, "window", 35)
    assert sum(store.asked) > 35
    await leases.close()
    assert sum(store.asked) == 35
    assert codes(ask(worker(store, clock), "window", 66)) == [OK] * 65 + [OVER]


def test_a_changed_limit_begins_a_lease_of_its_own() -> None:
    limiter = worker(SlowMemory(), Clock())
    ask(limiter, "window", 30)
    limiter.use(
        CONFIG.replace("requests_per_unit: 100, precision: lease(10)", "requests_per_unit: 50, precision: lease(10)")
    )
    found = codes(ask(limiter, "window", 30))
    assert 50 - 30 - LEASE <= found.count(OK) <= 20


def test_hits_are_counted_when_they_are_used() -> None:
    limiter = worker(SlowMemory(), Clock())
    ask(limiter, "window", 110)
    counts = dict(limiter.stats.items())["d", "window"]
    assert (counts.total, counts.within, counts.over, counts.near) == (110, 100, 10, 20)


Step = tuple[int, int, bool, float]
"""Which worker, how many hits, whether the store answers now, seconds until then."""
steps = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 1, 1, 1, 2, 7]), st.booleans(), st.sampled_from([0.0, 0.0, 0.3])),
    max_size=400,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from(ALGORITHMS), st.lists(st.integers(0, 400), max_size=3))
def test_workers_together_never_admit_more_than_the_limit(stream: list[Step], key: str, breaks: list[int]) -> None:
    store, clock = SlowMemory(slow=True), Clock()
    workers = [worker(store, clock) for _ in range(4)]
    calls: list[tuple[int, RecordedCall]] = []
    for at, (index, hits, answers, wait_s) in enumerate(stream):
        clock.now += wait_s / 10
        store.broken = at in breaks
        calls += [(hits, call) for call in ask(workers[index], key, hits=hits)]
        if answers:
            store.answer()
    store.broken = False
    for _ in range(5):
        store.answer()
    admitted = sum(
        hits
        for hits, call in calls
        if call.response.overall_code == OK and call.response.statuses[0].HasField("current_limit")
    )
    assert admitted <= LIMIT
    # Then one worker asks for all that there is.
    store.slow = False
    more = codes(ask(workers[0], key, LIMIT + 1)).count(OK)
    lost = LEASE * len(workers) + 7 * len(breaks) * LEASE
    assert LIMIT - lost <= admitted + more <= LIMIT


@pytest.mark.parametrize("key", ALGORITHMS)
def test_ten_thousand_concurrent_requests_over_four_workers_admit_the_limit_but_for_what_is_leased(key: str) -> None:
    store, clock = SlowMemory(slow=True), Clock()
    workers = [worker(store, clock) for _ in range(4)]
    calls = [call for number in range(10_000) for call in ask(workers[number % 4], key)]
    for _ in range(10):
        store.answer()
    assert LIMIT - 4 * LEASE <= codes(calls).count(OK) <= LIMIT


@pytest.mark.parametrize("algorithm", Algorithm)
def test_leases_are_for_algorithms_that_count_hits_alike(algorithm: Algorithm) -> None:
    fault = Rule("d", "k", Unit.MINUTE, 10, algorithm=algorithm, lease=5).fault()
    if algorithm in (Algorithm.LEAKY_BUCKET, Algorithm.CONCURRENCY):
        assert fault == ("precision", f"{algorithm} has no leases: each request is counted by itself")
    else:
        assert fault is None


BOTH = """
domain: d
descriptors:
  - {key: wide, rate_limit: {unit: hour, requests_per_unit: 40, algorithm: token_bucket, precision: lease(10)}}
  - {key: narrow, rate_limit: {unit: hour, requests_per_unit: 1, algorithm: token_bucket}}
"""
WIDE, NARROW = ("wide", ""), ("narrow", "")


def test_a_refused_request_takes_nothing_from_the_lease_of_its_other_limit() -> None:
    clock = Clock()
    limiter = Limiter(BOTH, store := MemoryStore(), clock=clock, leases=LeaseStore(store, clock=clock))
    both = request("d", [WIDE], [NARROW])
    for body in (*[request("d", [WIDE])] * 8, both, both):
        limiter.ask(body)
    left = limiter.ask(request("d", [WIDE])).response.statuses[0].limit_remaining
    for _ in range(3):
        assert limiter.ask(both).response.overall_code == OVER
    assert limiter.ask(request("d", [WIDE])).response.statuses[0].limit_remaining == left - 1


def test_a_lease_that_a_refused_request_asked_for_first_is_counted_like_any_other() -> None:
    clock = Clock()
    limiter = Limiter(BOTH, store := MemoryStore(), clock=clock, leases=LeaseStore(store, clock=clock))
    for body in (*[request("d", [NARROW])] * 2, request("d", [WIDE], [NARROW])):
        limiter.ask(body)
    assert codes([limiter.ask(request("d", [WIDE])) for _ in range(100)]).count(OK) <= 40


@pytest.mark.parametrize("key", ALGORITHMS)
def test_nobody_waits_for_more_than_an_answer_after_the_time_out(key: str) -> None:
    store, clock = SlowMemory(slow=True), Clock()
    workers = [worker(store, clock) for _ in range(4)]
    calls = [call for number in range(400) for call in ask(workers[number % 4], key, hits=number % 5 + 1)]
    for wait_s in (0.015, 0.015, 0.0):
        clock.now += wait_s
        store.answer()
    assert all(call.body is not None for call in calls)
    assert sum(number % 5 + 1 for number, call in enumerate(calls) if call.response.overall_code == OK) <= LIMIT
