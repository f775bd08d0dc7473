"""Token buckets (GCRA) in exact integers: an even rate, with a burst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratelimit_service.algorithms.base import Script, Stepped, Verdict
from ratelimit_service.checks import Check, Limit

# A bucket is "LEVEL TICK": how full it was, and when. Numbers stay below 2^53, where a double is exact. The server's
# clock is read unless a tick is given, so that replicas whose clocks disagree share one bucket fairly.
TOKEN_BUCKET = Script.of(
    b"""\
local cost, capacity, drain = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tps, hits, tick = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6] or '')
if not tick then
  local time = redis.call('TIME')
  tick = time[1] * tps + math.floor(time[2] * tps / 1000000)
end
local level = 0
local held = redis.call('GET', KEYS[1])
if held then
  local then_level, then_tick = string.match(held, '^(%d+) (%d+)$')
  level, then_tick = tonumber(then_level), tonumber(then_tick)
  if tick > then_tick then
    level = math.max(0, level - (tick - then_tick) * drain)
  else
    tick = then_tick
  end
end
if hits == 0 then return level end
local added = level + hits * cost
if added > capacity then return -1 - level end
local ttl_ms = math.ceil((added / drain + 1) * 1000 / tps) + 1
redis.call('SET', KEYS[1], string.format('%.0f %.0f', added, tick), 'PX', ttl_ms)
return added
"""
)


class TokenBucket:
    """The reply is the level after the hits, or -1 - level if there was no room for them: then they were not added."""

    script = TOKEN_BUCKET
    holds = False

    def key_part(self, limit: Limit) -> bytes:
        """The unit, so that an edited limit does not read a level of another scale."""
        return b"bucket_%d" % limit.seconds

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """Cost of a hit, capacity, what drains in a tick, ticks in a second, hits."""
        limit = check.limit
        return limit.cost, limit.capacity, limit.drain, limit.tps, check.hits

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """A bucket is (level, tick)."""
        limit = check.limit
        tick = int(now * limit.tps)
        level = 0
        if held is not None:
            level, at = held
            if tick > at:
                level = max(0, level - (tick - at) * limit.drain)
            else:
                tick = at
        if not check.hits:
            return level, None, 0.0
        added = level + check.hits * limit.cost
        if added > limit.capacity:
            return -1 - level, None, 0.0
        # Empty again by then, which is the same as not being there.
        return added, (added, tick), (tick + added // limit.drain + 1) / limit.tps

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges the level: as it became (0 or more), or as the request met it that was refused."""
        counter, limit, hits = check.counter, check.limit, check.hits
        stats = limit.stats
        stats.total += hits
        if reply >= 0:
            remaining = max(0, limit.capacity - reply) // limit.cost
            stats.within += hits
            used = limit.rule.bucket_size - remaining
            if used > limit.near:
                stats.near += min(hits, used - limit.near)
            return False, remaining, _seconds(limit, reply)
        level = -1 - reply
        stats.over += hits
        if limit.drain == 0:
            return True, 0, limit.seconds
        counter.level = level
        counter.tick = int(now * limit.tps)
        # A little late rather than early: `known_over` looks closer.
        counter.over_until = now + (level + limit.cost - limit.capacity) / (limit.drain * limit.tps) + 0.001
        return True, max(0, limit.capacity - level) // limit.cost, _wait(limit, level, hits)

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """A bucket with no room for one hit has none until its level has drained so far: others can only add."""
        counter, limit, hits = check.counter, check.limit, check.hits
        if counter.over_until <= now:
            return None
        level = counter.level - max(0, int(now * limit.tps) - counter.tick) * limit.drain
        if not hits or level + limit.cost <= limit.capacity:
            return None
        stats = limit.stats
        stats.total += hits
        stats.over += hits
        stats.over_local += hits
        return True, 0, _wait(limit, level, hits)

    def hold_s(self, check: Check, reply: int) -> float:
        """Never."""
        return 0.0


def _wait(limit: Limit, level: int, hits: int) -> int:
    # More hits than the bucket holds are never allowed: told is when it is full.
    return _seconds(limit, level + min(hits * limit.cost, limit.capacity) - limit.capacity)


def _seconds(limit: Limit, level: int) -> int:
    """The seconds in which so much drains, rounded up: who waits so long is not refused for a fraction."""
    per_second = limit.drain * limit.tps
    return -(-level // per_second) if per_second else limit.seconds
