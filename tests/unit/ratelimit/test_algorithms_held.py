# pyright: standard
"""Answers that are held until it is their request's turn, and who does not get to wait."""

from __future__ import annotations

import asyncio

from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.waiting_room import WaitingRoom
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request
from tests.support.waiting import until

CONFIG = """
domain: d
descriptors:
  - {key: queue, rate_limit: {unit: second, requests_per_unit: 20, algorithm: leaky_bucket, delay: 200ms}}
  - {key: long, rate_limit: {unit: minute, requests_per_unit: 1, algorithm: leaky_bucket, delay: 60s}}
  - {key: meter, rate_limit: {unit: second, requests_per_unit: 20, algorithm: leaky_bucket}}
  - {key: day, rate_limit: {unit: day, requests_per_unit: 3, algorithm: sliding_window}}
  - {key: never, rate_limit: {unit: day, requests_per_unit: 0}}
  - key: watched
    rate_limit: {unit: minute, requests_per_unit: 1, algorithm: leaky_bucket, delay: 60s}
    shadow_mode: true
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 2, algorithm: concurrency}}
"""
OK, OVER = 1, 2


class PatientCall(RecordedCall):
    """A call that notes when it was answered."""

    at: float | None = None

    def done(self, body: bytes) -> None:
        super().done(body)
        self.at = asyncio.get_running_loop().time()


def limiter() -> Limiter:
    return Limiter(CONFIG, MemoryStore(), clock=Clock())


def send(to: Limiter, *descriptors: tuple[str, str], deadline_s: float | None = None) -> PatientCall:
    call = PatientCall()
    if deadline_s is not None:
        call.deadline = asyncio.get_running_loop().time() + deadline_s
    to.handler(request("d", *([each] for each in descriptors)), call)
    return call


async def test_requests_are_answered_one_after_the_other_and_who_would_wait_too_long_at_once() -> None:
    asked, began = limiter(), asyncio.get_running_loop().time()
    calls = [send(asked, ("queue", "a")) for _ in range(6)]
    assert [call.at is not None for call in calls] == [True, False, False, False, False, True]
    refused = calls.pop()
    assert (refused.response.overall_code, refused.response.statuses[0].duration_until_reset.seconds) == (OVER, 1)
    await until(lambda: all(call.at is not None for call in calls), what="the answers")
    times = [call.at - began for call in calls if call.at is not None]
    assert times == sorted(times)
    assert all(at >= 0.05 * turn for turn, at in enumerate(times))
    assert [call.response.overall_code for call in calls] == [OK] * 5


async def test_without_a_delay_nobody_waits_and_there_is_no_burst() -> None:
    asked = limiter()
    found: list[int] = []
    for _ in range(6):
        found.append(send(asked, ("meter", "a")).response.overall_code)
        asked.clock.now += 0.025
    assert found == [OK, OVER, OK, OVER, OK, OVER]


async def test_a_call_whose_deadline_comes_before_its_turn_is_refused_at_once_and_takes_no_place() -> None:
    asked = limiter()
    assert send(asked, ("long", "a")).response.overall_code == OK
    hurried = [send(asked, ("long", "a"), deadline_s=5) for _ in range(10)]
    assert {call.response.overall_code for call in hurried} == {OVER}
    # Its turn is in 60 s: nobody is before it.
    patient = send(asked, ("long", "a"), deadline_s=61)
    assert patient.at is None
    assert len(asked.handler.waiting) == 1


async def test_a_hurried_call_is_told_when_it_would_have_its_turn_in_time() -> None:
    asked = limiter()
    send(asked, ("long", "a"))
    status = send(asked, ("long", "a"), deadline_s=10.5).response.statuses[0]
    assert status.duration_until_reset.seconds == 50


async def test_when_all_places_to_wait_are_taken_only_those_who_need_not_wait_are_admitted() -> None:
    asked = limiter()
    asked.handler.waiting = WaitingRoom(most=2)
    calls = [send(asked, ("long", "a")) for _ in range(2)]
    other = [send(asked, ("long", "b")) for _ in range(3)]
    assert [call.at is not None for call in calls] == [True, False]
    assert [call.at is not None for call in other] == [True, False, True]
    assert other[2].response.overall_code == OVER
    assert send(asked, ("long", "c")).response.overall_code == OK


async def test_calls_whose_peer_has_left_do_not_keep_others_from_waiting() -> None:
    asked = limiter()
    asked.handler.waiting = WaitingRoom(most=2)
    gone = [send(asked, ("long", key)) for key in "aabb"]
    for call in gone:
        call.cancelled = True
    waiting = [send(asked, ("long", "c")) for _ in range(2)]
    assert [call.at is not None for call in waiting] == [True, False]
    assert len(asked.handler.waiting) == 1


async def test_a_request_that_another_limit_refuses_neither_waits_nor_takes_a_place() -> None:
    asked = limiter()
    send(asked, ("long", "a"))
    for _ in range(3):
        refused = send(asked, ("long", "a"), ("never", "x"))
        assert refused.response.overall_code == OVER
    assert len(asked.handler.waiting) == 0
    assert send(asked, ("long", "a")).at is None


async def test_what_is_refused_is_taken_from_no_other_limit() -> None:
    asked = limiter()
    for _ in range(5):
        statuses = send(asked, ("day", "a"), ("never", "x")).response.statuses
        assert [status.code for status in statuses] == [OK, OVER]
        assert statuses[0].limit_remaining == 3
    assert [send(asked, ("day", "a")).response.overall_code for _ in range(4)] == [OK, OK, OK, OVER]


async def test_a_limit_in_shadow_mode_makes_nobody_wait_and_keeps_nothing_from_being_counted() -> None:
    asked = limiter()
    for _ in range(3):
        assert send(asked, ("watched", "a"), ("day", "a")).response.overall_code == OK
    assert asked.stats.of("d", "watched").shadow == 1
    assert send(asked, ("watched", "a"), ("day", "a")).response.overall_code == OVER


async def test_a_request_that_nobody_waits_for_any_more_is_not_in_flight() -> None:
    asked = limiter()
    for _ in range(5):
        call = PatientCall()
        call.cancelled = True
        asked.handler(request("d", [("flight", "a")]), call)
    assert [send(asked, ("flight", "a")).response.overall_code for _ in range(3)] == [OK, OK, OVER]


async def test_requests_that_are_named_are_told_apart_and_end_when_they_are_said_to() -> None:
    asked = limiter()

    def named(name: str, *, done: bool = False) -> int:
        more = [("dragoman.done", "")] if done else []
        return asked.ask(request("d", [("flight", "a"), ("dragoman.request", name), *more])).response.overall_code

    assert [named("x"), named("x"), named("y"), named("z")] == [OK, OK, OK, OVER]
    assert [named("unknown", done=True), named("z")] == [OK, OVER]
    assert [named("x", done=True), named("z"), named("x")] == [OK, OK, OVER]
    assert asked.stats.of("d", "flight").total == 7


async def test_names_of_requests_are_not_remembered_with_what_is_planned() -> None:
    asked = limiter()
    for number in range(50):
        asked.ask(request("d", [("flight", "a"), ("dragoman.request", str(number))]))
    plans, counters = asked.handler._plans, asked.handler._planner._counters  # pyright: ignore
    assert (len(plans), len(counters)) == (0, 1)


async def test_an_end_says_nothing_to_limits_that_count_otherwise() -> None:
    asked = limiter()
    for _ in range(5):
        asked.ask(request("d", [("day", "a"), ("dragoman.request", "x"), ("dragoman.done", "")]))
    assert asked.stats.of("d", "day").total == 0
