"""Ends of requests that the store could not be told of: kept, told when it answers, and never without bound."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service import running
from ratelimit_service.checks import Check
from ratelimit_service.planner import Planner
from ratelimit_service.running import Running
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Flight
from tests.support.ratelimit import loaded, request

CONFIG = """
domain: d
descriptors:
  - {key: k, rate_limit: {unit: minute, requests_per_unit: 5, algorithm: concurrency}}
"""


class Asked:
    """A store that keeps what it is told; `reply` is None while it is away."""

    def __init__(self) -> None:
        self.reply: int | None = None
        self.told: list[bytes] = []
        self.available = True

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        self.told += [check.caller for check in checks]
        flight.replies = [self.reply] * len(checks)
        flight.settle()

    async def close(self) -> None: ...


def ending(name: str) -> Check:
    planner = Planner(loaded(CONFIG), StatsRegistry())
    (check,) = planner.plan(request("d", [("k", "x"), ("dragoman.request", name), ("dragoman.done", "1")])).checks
    return check


def test_an_end_is_told_once_and_not_with_each_request_while_the_store_is_away() -> None:
    ends, store = Running(), Asked()
    first, second = ending("a"), ending("b")
    for check in (first, second, first):
        ends.heard(check, None, 100.0, store)
    assert (ends.untold, store.told) == (2, [])
    for _ in range(3):
        ends.heard(first._replace(ends=False), 1, 100.0, store)
    assert (ends.untold, store.told) == (2, [b"a", b"b"])
    store.reply = 0
    for _ in range(3):
        ends.heard(first._replace(ends=False), 1, 101.0, store)
    assert (ends.untold, store.told) == (0, [b"a", b"b"] * 2)


def test_an_end_whose_lease_is_over_is_not_told_any_more() -> None:
    ends, store = Running(), Asked()
    ends.heard(ending("a"), None, 100.0, store)
    ends.heard(ending("b"), None, 130.0, store)
    store.reply = 0
    ends.heard(ending("c"), 0, 161.0, store)
    assert (ends.untold, store.told) == (0, [b"b"])


def test_of_too_many_ends_the_oldest_are_left_to_their_leases() -> None:
    ends, store = Running(), Asked()
    check = ending("a")
    for number in range(running._MOST_UNTOLD + 10):
        ends.heard(check._replace(caller=b"%d" % number), None, 100.0, store)
    assert ends.untold == running._MOST_UNTOLD
    store.reply = 0
    ends.heard(check, 1, 100.0, store)
    assert (store.told[0], len(store.told)) == (b"10", running._AT_A_TIME)


def test_what_does_not_end_a_request_is_not_kept() -> None:
    ends = Running()
    ends.heard(ending("a")._replace(ends=False), None, 100.0, Asked())
    ends.heard(ending("a")._replace(caller=b""), None, 100.0, Asked())
    assert ends.untold == 0
