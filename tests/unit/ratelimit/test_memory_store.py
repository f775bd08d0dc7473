# pyright: standard
"""Counters in memory: bounded, never forgotten while they count, gone when they do not."""

from __future__ import annotations

import gc

import pytest

from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request

CONFIG = """
domain: d
descriptors:
  - {key: minute, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: day, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: strict, rate_limit: {unit: day, requests_per_unit: 1, on_store_error: deny}}
  - {key: bucket, rate_limit: {unit: minute, requests_per_unit: 2, algorithm: token_bucket}}
"""
FLIGHT = """
domain: d
descriptors:
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 20, algorithm: concurrency}}
"""
OK, OVER = 1, 2


def ask(limiter: Limiter, key: str, value: object) -> int:
    return limiter.ask(request("d", [(key, str(value))])).response.overall_code


def test_counters_of_a_window_that_ended_make_room() -> None:
    store = MemoryStore(max_keys=100)
    limiter = Limiter(CONFIG, store, clock=Clock())
    for value in range(100):
        ask(limiter, "minute", value)
    assert store.keys == 100
    limiter.clock.now += 60
    ask(limiter, "minute", "x")
    assert store.keys == 1


def test_counters_of_another_unit_make_room_when_their_window_ended() -> None:
    store = MemoryStore(max_keys=100)
    limiter = Limiter(CONFIG, store, clock=Clock())
    for value in range(100):
        ask(limiter, "minute", value)
    limiter.clock.now += 60
    assert ask(limiter, "strict", "x") == OK
    assert store.keys == 1


def test_a_full_store_forgets_no_counter_and_new_keys_follow_the_fail_mode() -> None:
    store = MemoryStore(max_keys=100)
    limiter = Limiter(CONFIG, store, clock=Clock())
    for value in range(100):
        assert ask(limiter, "day", value) == OK
    for value in range(100, 200):
        assert ask(limiter, "day", value) == OK
        assert ask(limiter, "strict", value) == OVER
    assert all(ask(limiter, "day", value) == OVER for value in range(100))
    assert store.keys == 100
    assert store.refused == 200


def test_buckets_that_are_full_again_make_room() -> None:
    store = MemoryStore(max_keys=50)
    limiter = Limiter(CONFIG, store, clock=Clock())
    for value in range(50):
        ask(limiter, "bucket", value)
    limiter.clock.now += 31
    for value in range(50, 100):
        ask(limiter, "bucket", value)
    assert store.keys <= 50
    assert store.refused == 0


def test_looking_at_a_bucket_stores_nothing() -> None:
    store = MemoryStore()
    limiter = Limiter(CONFIG, store, clock=Clock())
    limiter.ask(request("d", [("bucket", "a")], own_hits=(0,)))
    assert store.keys == 0


def test_a_clock_that_goes_back_gives_nobody_a_second_limit() -> None:
    limiter = Limiter(CONFIG, MemoryStore(), clock=Clock())
    assert ask(limiter, "minute", "a") == OK
    assert [ask(limiter, "bucket", "a") for _ in range(3)] == [OK, OK, OVER]
    limiter.clock.now -= 30
    assert ask(limiter, "minute", "a") == OVER
    assert ask(limiter, "bucket", "a") == OVER


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket", "leaky_bucket"])
def test_a_clock_that_was_a_day_ahead_keeps_nobody_out_for_a_day(algorithm: str) -> None:
    limit = f"{{unit: minute, requests_per_unit: 2, algorithm: {algorithm}}}"
    limiter = Limiter(f"{{domain: d, descriptors: [{{key: a, rate_limit: {limit}}}]}}", MemoryStore(), clock=Clock())
    assert OVER in [ask(limiter, "a", "x") for _ in range(4)]
    limiter.clock.now -= 86_400
    ask(limiter, "a", "x")
    limiter.clock.now += 120
    assert [ask(limiter, "a", "x") for _ in range(4)].count(OK) in (1, 2)


def flight(limiter: Limiter, caller: int, *, done: bool = False) -> int:
    entries = [("flight", "x"), ("dragoman.request", str(caller))]
    return limiter.ask(request("d", entries + [("dragoman.done", "1")] * done)).response.overall_code


def test_few_and_many_in_flight_are_counted_alike_and_forgotten_when_the_last_has_ended() -> None:
    store = MemoryStore()
    limiter = Limiter(FLIGHT, store, clock=Clock())
    assert [flight(limiter, caller) for caller in range(22)] == [OK] * 20 + [OVER] * 2
    for caller in range(17):
        flight(limiter, caller, done=True)
    assert store.keys == 1
    assert [flight(limiter, caller) for caller in range(30, 48)] == [OK] * 17 + [OVER]
    for caller in range(50):
        flight(limiter, caller, done=True)
    assert store.keys == 0


def test_counters_are_nothing_that_the_garbage_collector_looks_at() -> None:
    for key in ("minute", "bucket"):
        store = MemoryStore()
        limiter = Limiter(CONFIG, store, clock=Clock())
        gc.collect()
        before = len(gc.get_objects())
        for value in range(5000):
            ask(limiter, key, value)
        # With it go its notes on the requests of late.
        del limiter
        gc.collect()
        assert store.keys == 5000
        assert len(gc.get_objects()) - before < 1000
