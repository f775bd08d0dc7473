"""Buckets before the rate limit service: nobody is refused who keeps to the limit, who keeps asking has all of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import ir
from controlplane.translate import newer
from controlplane.translate.filters import shield
from tests.support.ratelimit_models import Ask, FixedWindow, Model, SlidingWindow, TokenBucket


def buckets(limit: ir.GlobalLimit) -> dict[tuple[tuple[str, str], ...], Any]:
    """The buckets of a route, by their entries."""
    policies = ir.Policies(global_limit=limit, limit_scope="route")
    made = shield.route_config(None, policies)  # pyright: ignore[reportArgumentType]  (not looked at)
    if made is None:
        return {}
    message = newer.message("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit").FromString(made.value)
    return {tuple((e.key, e.value) for e in each.entries): each.token_bucket for each in message.descriptors}


def size(rule: ir.LimitRule) -> tuple[int, Fraction]:
    """How many tokens the bucket of a rule holds, and how many it wins back a second."""
    (bucket,) = buckets(ir.GlobalLimit("demo/limits", (replace(rule, shielded=True),))).values()
    return bucket.max_tokens, Fraction(bucket.tokens_per_fill.value, bucket.fill_interval.seconds)


class Bucket:
    """As Envoy counts: tokens come back evenly."""

    def __init__(self, tokens: int, per_s: Fraction) -> None:
        self._size, self._per_s = tokens, per_s
        self._tokens, self._then = Fraction(tokens), Fraction(0)

    def take(self, now: Fraction) -> bool:
        self._tokens = min(Fraction(self._size), self._tokens + (now - self._then) * self._per_s)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def model(algorithm: str, limit: int, burst: int) -> Model:
    """What the service decides."""
    if algorithm == "TokenBucket":
        return TokenBucket(limit, 60, burst or limit)
    return FixedWindow(limit, 60) if algorithm == "FixedWindow" else SlidingWindow(limit, 60)


@pytest.mark.parametrize(
    ("algorithm", "burst"), [("FixedWindow", 0), ("SlidingWindow", 0), ("TokenBucket", 0), ("TokenBucket", 7)]
)
@given(limit=st.integers(1, 5), gaps=st.lists(st.integers(0, 40), max_size=60))
def test_who_keeps_to_the_limit_is_never_refused(algorithm: Any, burst: int, limit: int, gaps: list[int]) -> None:
    bucket = Bucket(*size(ir.LimitRule(limit, "Minute", counting=ir.Counting(algorithm, burst))))
    counter, now = model(algorithm, limit, burst), 1_200
    for gap in gaps:
        now += gap
        ask = Ask(now * 1_000_000, 1)
        # What the limit refuses is not asked for: that is to keep to it.
        if not counter.told(ask, taken=True)[0]:
            counter.take(ask)
            assert bucket.take(Fraction(now))


@given(limit=st.integers(1, 20), before=st.lists(st.integers(0, 59_999), max_size=60))
def test_who_keeps_asking_has_the_whole_limit_in_each_window(limit: int, before: list[int]) -> None:
    bucket = Bucket(*size(ir.LimitRule(limit, "Minute")))
    for at in sorted(before):
        bucket.take(Fraction(at, 1000))
    passed = sum(bucket.take(Fraction(60 * 1000 + at, 1000)) for at in range(0, 60_000, 50))
    assert passed >= limit


def test_callers_without_a_limit_have_a_bucket_that_never_ends() -> None:
    limited = ir.CallerLimit(5, "Second")
    free = ir.Plan("free", "demo/free", per_consumer=(limited,), consumers=(ir.Override("boss", ()),))
    none = ir.Plan("none", "demo/none")
    plans = ir.Plans(ir.PlanIdentity(), (free, none), "free", "free", shielded=True, home="demo/limits")
    found = buckets(ir.GlobalLimit("demo/limits", (), plans=plans))
    slot = ("demo/limits_plans", "consumer.0")
    assert found[(slot, ("plan", "free"), ("consumer", ""))].max_tokens == 10
    assert found[(slot, ("plan", "free"), ("consumer", "boss"))].max_tokens == 2**32 - 1
    assert not any(("plan", "none") in path for path in found)


def test_callers_whose_limit_is_only_tried_out_have_a_bucket_that_never_ends() -> None:
    limited, tried = ir.CallerLimit(5, "Second"), ir.CallerLimit(7, "Second", shadow=True)
    free = ir.Plan("free", "demo/free", per_consumer=(limited,), consumers=(ir.Override("boss", (tried,)),))
    plans = ir.Plans(ir.PlanIdentity(), (free,), "free", "free", shielded=True, home="demo/limits")
    found = buckets(ir.GlobalLimit("demo/limits", (), plans=plans))
    path = (("demo/limits_plans", "consumer.0"), ("plan", "free"))
    assert found[*path, ("consumer", "")].max_tokens == 10
    assert found[*path, ("consumer", "boss")].max_tokens == 2**32 - 1
    nobody = replace(plans, plans=(replace(free, per_consumer=(tried,)),))
    assert buckets(ir.GlobalLimit("demo/limits", (), plans=nobody)) == {}


def test_a_plan_that_nobody_knows_has_no_bucket_for_it_would_be_anybodys() -> None:
    free = ir.Plan("free", "demo/free", per_consumer=(ir.CallerLimit(5, "Second"),))
    plans = ir.Plans(ir.PlanIdentity(), (free, ir.Plan("paid", "demo/paid")), "free", "paid", shielded=True)
    found = buckets(ir.GlobalLimit("demo/limits", (), plans=plans))
    assert all(("plan", "") not in path for path in found)


def test_what_cannot_be_shielded_is_not() -> None:
    rule = ir.LimitRule(5, "Minute")
    assert buckets(ir.GlobalLimit("demo/limits", (rule,))) == {}
    running = replace(rule, counting=ir.Counting("Concurrency"), shielded=True)
    assert buckets(ir.GlobalLimit("demo/limits", (running,))) == {}
    shadow = replace(rule, shadow=True, shielded=True)
    assert buckets(ir.GlobalLimit("demo/limits", (shadow,))) == {}
