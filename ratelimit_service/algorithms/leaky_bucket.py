"""Leaky buckets: an even rate without bursts. Who comes too early waits for its turn, up to a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratelimit_service.algorithms.base import Stepped, Verdict
from ratelimit_service.algorithms.ticks import MAX_EXACT, UNBOUNDED, Scale, micros, named, tick_us
from ratelimit_service.algorithms.token_bucket import BUCKET_ALONE, drained_s, level_known, pour
from ratelimit_service.checks import Check, Limit
from ratelimit_service.model import MAX_LIMIT, Rule

_LONGEST_TICK_US = 1_000
_NEVER = -1
"""A capacity that nothing fits into."""


class LeakyBucket:
    """The level is what is queued. A request is admitted if what is before it drains in time, however many turns it
    takes itself: a token bucket's script whose capacity is that much and the request's own hits. The reply is a token
    bucket's.
    """

    script = BUCKET_ALONE
    number = 3
    holds = True
    needs_caller = False

    def scale(self, rule: Rule) -> Scale:
        """The capacity is what drains in the longest wait."""
        delay_us, rate = round(rule.delay_s * 1_000_000), rule.requests_per_unit
        whole_us = rule.seconds * 1_000_000
        fitting = tick_us(rule, lambda ticks: max(delay_us * ticks // whole_us, ticks) * rate <= MAX_EXACT // 2)
        # Turns are told apart however large the limit is; one request may take fewer of them then.
        tick = min(fitting, _LONGEST_TICK_US)
        cost, capacity = whole_us // tick, delay_us // tick * rate
        # The last one in the queue may be of as many hits as the limit.
        full = UNBOUNDED if rule.refined else capacity + rate * cost
        return Scale(tick, cost, capacity, min(MAX_LIMIT, 1 + capacity // cost) if rate else 0, full)

    def key_part(self, limit: Limit) -> bytes:
        """The scale of the level."""
        return b"queue_" + named(limit.seconds, limit.tick_us)

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """Those of a token bucket."""
        limit = check.limit
        return limit.tick_us, limit.cost, _capacity(check), limit.drain, check.hits, limit.full

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """A queue is (level, tick)."""
        return pour(check, held, now, _capacity(check))

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges the level: as it became, or as the request met it. Of an admitted request the time is told from its
        turn on.
        """
        counter, limit, hits = check.counter, check.limit, check.hits
        stats = limit.stats
        stats.total += hits
        if reply >= 0:
            remaining = _room(limit, reply)
            stats.within += hits
            used = limit.size - remaining
            if used > limit.near:
                stats.near += min(hits, used - limit.near)
            return False, remaining, drained_s(limit, min(reply, hits * limit.cost) if hits else reply)
        level = -1 - reply
        stats.over += hits
        if limit.drain == 0:
            return True, 0, limit.seconds
        missing = level - _allowance(check)
        if missing > 0:
            counter.level = level
            counter.tick = micros(now) // limit.tick_us
            wait_s = missing * limit.seconds / (limit.drain * limit.cost) + 0.001
            counter.refuse_until(now + min(wait_s, limit.known_s))
        return True, 0, _wait_s(check, level)

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """What was too much to wait for is so until it has drained so far: others can only add."""
        counter, limit, hits = check.counter, check.limit, check.hits
        if not 0 < counter.over_until - now <= limit.known_s:
            return None
        level = level_known(check, now)
        if not hits or level <= _allowance(check):
            return None
        stats = limit.stats
        stats.total += hits
        stats.over += hits
        stats.over_local += hits
        return True, 0, _wait_s(check, level)

    def hold_s(self, check: Check, reply: int) -> float:
        """The time in which what was before the request drains."""
        limit = check.limit
        before = reply - check.hits * limit.cost
        return before * limit.seconds / (limit.drain * limit.cost) if before > 0 and check.hits else 0.0


def _room(limit: Limit, level: int) -> int:
    """How many single hits could still wait."""
    return min(MAX_LIMIT, max(0, limit.capacity + limit.cost - level) // limit.cost) if limit.drain else 0


def _allowance(check: Check) -> int:
    """What may be before the request: as much as drains in the limit's delay, or while its caller has patience."""
    limit = check.limit
    if check.patience_us < 0:
        return limit.capacity
    return min(limit.capacity, check.patience_us // limit.tick_us * limit.drain)


def _is_possible(check: Check) -> bool:
    # A request that takes more turns than a unit has would bar the way for all others.
    return check.hits <= check.limit.per_unit and check.hits * check.limit.cost <= MAX_EXACT


def _capacity(check: Check) -> int:
    return _allowance(check) + check.hits * check.limit.cost if _is_possible(check) else _NEVER


def _wait_s(check: Check, level: int) -> int:
    # Of a request that is never admitted, told is when nothing is queued.
    return drained_s(check.limit, level - _allowance(check) if _is_possible(check) else level)
