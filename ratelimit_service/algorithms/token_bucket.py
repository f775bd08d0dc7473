"""Token buckets (GCRA) in exact integers: an even rate, with a burst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratelimit_service.algorithms.base import Stepped, Verdict
from ratelimit_service.algorithms.scripts import Function, Script
from ratelimit_service.algorithms.ticks import MAX_EXACT, UNBOUNDED, Scale, micros, named, tick_us
from ratelimit_service.checks import Check, Limit
from ratelimit_service.model import Rule

LONGEST_S = 315_576_000_000
"""Ten thousand years: protobuf's Duration takes no more. A bucket that is large and drips may need longer to drain."""

# A bucket is "LEVEL TICK": how full it was, and when. Numbers stay below 2^53, where a double is exact. It stays for a
# second longer than it counts: what is written many times a second need not go in between.
BUCKET = Function(
    b"""\
function(key, a, i, now)
  local tick_us, cost, capacity = tonumber(a[i]), tonumber(a[i + 1]), tonumber(a[i + 2])
  local drain, hits, full = tonumber(a[i + 3]), tonumber(a[i + 4]), tonumber(a[i + 5])
  local tick, level = math.floor(now / tick_us), 0
  local held = redis.call('GET', key)
  if held then
    local then_level, then_tick = string.match(held, '^(%d+) (%d+)$')
    level, then_tick = math.min(tonumber(then_level), full), tonumber(then_tick)
    if tick > then_tick then
      level = math.max(0, level - (tick - then_tick) * drain)
    elseif then_tick - tick <= cost then
      tick = then_tick
    else
      level = 0
    end
  end
  local added = math.max(0, level + hits * cost)
  local function hold()
    local ttl_ms = math.min(1e15, math.ceil((added / drain + 1) * tick_us / 1000) + 1000)
    redis.call('SET', key, string.format('%.0f %.0f', added, tick), 'PX', string.format('%.0f', ttl_ms))
  end
  if hits < 0 and level > 0 and drain > 0 then
    hold()
    return added, false, added
  end
  if hits <= 0 then return level, false, level end
  if added > capacity then return -1 - level, true end
  return added, false, level, hold
end
""",
    6,
)
BUCKET_ALONE = Script.alone(BUCKET)


class TokenBucket:
    """The reply is the level after the hits, or -1 - level if there was no room for them: then they were not added."""

    script = BUCKET_ALONE
    number = 3
    holds = False
    needs_caller = False

    def scale(self, rule: Rule) -> Scale:
        """The capacity is the whole bucket."""
        size = rule.bucket_size
        tick = tick_us(rule, lambda ticks: size * ticks <= MAX_EXACT)
        cost = rule.seconds * 1_000_000 // tick
        capacity = size * cost
        # Of the limits that requests bring to a counter, a small one must not make room for a large one.
        return Scale(tick, cost, capacity, size, UNBOUNDED if rule.refined else capacity)

    def key_part(self, limit: Limit) -> bytes:
        """The scale of the level."""
        return b"bucket_" + named(limit.seconds, limit.tick_us)

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """The length of a tick, cost of a hit, capacity, what drains in a tick, hits, how much there can be."""
        limit = check.limit
        return limit.tick_us, limit.cost, limit.capacity, limit.drain, check.hits, limit.full

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """A bucket is (level, tick)."""
        return pour(check, held, now, check.limit.capacity)

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges the level: as it became (0 or more), or as the request met it that was refused."""
        counter, limit, hits = check.counter, check.limit, check.hits
        stats = limit.stats
        stats.total += hits
        if reply >= 0:
            remaining = max(0, limit.capacity - reply) // limit.cost
            stats.within += hits
            used = limit.size - remaining
            if used > limit.near:
                stats.near += min(hits, used - limit.near)
            return False, remaining, drained_s(limit, reply)
        level = -1 - reply
        stats.over += hits
        if limit.drain == 0:
            return True, 0, limit.seconds
        counter.level = level
        counter.tick = micros(now) // limit.tick_us
        # A little late rather than early: `known_over` looks closer.
        missing = level + limit.cost - limit.capacity
        wait_s = missing * limit.seconds / (limit.drain * limit.cost) + 0.001
        counter.refuse_until(now + min(wait_s, limit.known_s))
        return True, max(0, limit.capacity - level) // limit.cost, _wait_s(limit, level, hits)

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """A bucket with no room for one hit has none until its level has drained so far: others can only add."""
        counter, limit, hits = check.counter, check.limit, check.hits
        if not 0 < counter.over_until - now <= limit.known_s:
            return None
        level = level_known(check, now)
        if not hits or level + limit.cost <= limit.capacity:
            return None
        stats = limit.stats
        stats.total += hits
        stats.over += hits
        stats.over_local += hits
        return True, 0, _wait_s(limit, level, hits)

    def hold_s(self, check: Check, reply: int) -> float:
        """Never."""
        return 0.0


def pour(check: Check, held: Any, now: float, capacity: int) -> Stepped:
    """Does what the script does, with a bucket (level, tick)."""
    limit = check.limit
    tick = micros(now) // limit.tick_us
    level = 0
    if held is not None:
        level, at = held
        level = min(level, limit.full)
        if tick > at:
            level = max(0, level - (tick - at) * limit.drain)
        elif at - tick <= limit.cost:
            tick = at
        else:
            # A clock that goes back a little stands still; one that was far ahead must not keep the bucket full.
            level = 0
    if check.hits <= 0:
        return _returned(limit, check.hits, level, tick) if check.hits and level and limit.drain else (level, None, 0.0)
    added = level + check.hits * limit.cost
    if added > capacity:
        return -1 - level, None, 0.0
    if not check.take:
        return level, None, 0.0
    # Empty again by then, which is the same as not being there.
    return added, (added, tick), (tick + added // limit.drain + 1) * limit.tick_us / 1_000_000


def _returned(limit: Limit, hits: int, level: int, tick: int) -> Stepped:
    """Does the same for hits that are given back."""
    level = max(0, level + hits * limit.cost)
    return level, (level, tick), (tick + level // limit.drain + 1) * limit.tick_us / 1_000_000


def level_known(check: Check, now: float) -> int:
    """Returns how full a bucket is at the least that was seen to refuse; 0 by a clock that has gone back since."""
    counter, limit = check.counter, check.limit
    ticks = micros(now) // limit.tick_us - counter.tick
    return counter.level - ticks * limit.drain if ticks >= 0 else 0


def drained_s(limit: Limit, level: int) -> int:
    """Returns the seconds in which so much drains, rounded up: who waits so long is not refused for a fraction."""
    per_second = limit.drain * limit.cost
    if not per_second:
        return limit.seconds
    seconds = -(-level * limit.seconds // per_second)
    return seconds if seconds < LONGEST_S else LONGEST_S


def _wait_s(limit: Limit, level: int, hits: int) -> int:
    # More hits than the bucket holds are never allowed: told is when it is full.
    return drained_s(limit, level + min(hits * limit.cost, limit.capacity) - limit.capacity)
