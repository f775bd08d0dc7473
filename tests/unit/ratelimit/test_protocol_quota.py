# pyright: standard, reportAttributeAccessIssue=false
"""What a client is granted ahead, by the field that it may cache."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.grants import Granting
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request

LIMITS = """
domain: d
descriptors:
- {key: k, rate_limit: {unit: minute, requests_per_unit: 10}}
- {key: wide, rate_limit: {unit: day, requests_per_unit: 100}}
- {key: bucket, rate_limit: {unit: minute, requests_per_unit: 60, algorithm: token_bucket, burst: 20}}
- {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
- {key: free, rate_limit: {unlimited: true}}
"""
K, WIDE, NONE = [("k", "a")], [("wide", "a")], [("none", "a")]


class Granted:
    """A limiter that grants four requests ahead."""

    def __init__(self) -> None:
        self.clock = Clock(1_800_000_010.0)
        self.limiter = Limiter(LIMITS, MemoryStore(), clock=self.clock)
        self.handler = Granting(self.limiter.handler, ahead=4, clock=self.clock)

    def ask(self, body: bytes) -> Any:
        call = RecordedCall()
        self.handler(body, call)
        return call.response


def quota(response: Any) -> tuple[int, int] | None:
    if not response.HasField("quota"):
        return None
    return response.quota.requests, response.quota.valid_until.seconds


def test_a_grant_is_counted_and_lasts_until_the_window_ends() -> None:
    given = Granted()
    first = given.ask(request("d", K))
    assert (first.overall_code, first.statuses[0].limit_remaining) == (1, 9)
    assert quota(first) == (4, 1_800_000_060)
    second = given.ask(request("d", K))
    assert (second.statuses[0].limit_remaining, quota(second)) == (4, (4, 1_800_000_060))
    # All ten are given out: one each that was asked for, four each ahead.
    third = given.ask(request("d", K))
    assert (third.overall_code, quota(third)) == (2, None)
    assert given.limiter.stats.of("d", "k").within == 10


def test_where_too_little_is_left_nothing_is_granted_and_nothing_is_lost() -> None:
    given = Granted()
    for left in range(9, 5, -1):
        given.limiter.ask(request("d", K))
        assert given.limiter.ask(request("d", K, own_hits=(0,))).response.statuses[0].limit_remaining == left
    assert quota(given.ask(request("d", K))) == (4, 1_800_000_060)
    last = given.ask(request("d", K))
    assert (last.overall_code, last.statuses[0].limit_remaining, quota(last)) == (1, 0, None)


def test_the_set_of_descriptors_is_granted_what_all_its_limits_have_until_the_first_ends() -> None:
    given = Granted()
    body = request("d", WIDE, NONE, K)
    assert quota(given.ask(body)) == (4, 1_800_000_060)
    assert given.limiter.ask(request("d", WIDE, own_hits=(0,))).response.statuses[0].limit_remaining == 95
    given.ask(body)
    assert quota(given.ask(request("d", WIDE))) == (4, 1_800_000_000 // 86400 * 86400 + 86400)


def test_a_bucket_grants_of_its_tokens() -> None:
    assert quota(Granted().ask(request("d", [("bucket", "a")]))) == (4, 1_800_000_011)


@pytest.mark.parametrize(
    "body",
    [
        request("d", NONE),
        request("other", K),
        request("d", [("free", "a")]),
        request("d", [("shadow", "a")]),
        request("d", K, hits=2),
        request("d", K, own_hits=(0,)),
        request("d", K, WIDE, own_hits=(1, 3)),
        request("d", [("k", "x" * 3000)]),
    ],
    ids=["no-limit", "no-domain", "unlimited", "little-left", "two-hits", "a-look", "costs-more", "too-long"],
)
def test_what_cannot_be_counted_ahead_is_not_granted(body: bytes) -> None:
    assert quota(Granted().ask(body)) is None


def test_without_a_store_nothing_is_granted() -> None:
    given = Granted()
    given.limiter = Limiter(LIMITS, MemoryStore(max_keys=1), clock=given.clock)
    given.handler = Granting(given.limiter.handler, ahead=4, clock=given.clock)
    assert quota(given.ask(request("d", K))) is not None
    response = given.ask(request("d", [("k", "other")]))
    assert (response.overall_code, quota(response)) == (1, None)


def test_a_request_of_no_sense_is_refused_as_ever() -> None:
    call = RecordedCall()
    Granted().handler(b"\xff", call)
    assert call.failure is not None
