"""Sliding windows of two counters: the present window, and of the one before it the part within the unit ending now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratelimit_service.algorithms.base import Stepped, Verdict
from ratelimit_service.algorithms.scripts import Function, Script
from ratelimit_service.algorithms.ticks import MAX_EXACT, Scale, micros, tick_us
from ratelimit_service.checks import Check, Limit
from ratelimit_service.model import Rule

# A counter is "WINDOW COUNT BEFORE": the number of the window since 1970, its count and that of the window before it.
# It is one key, so that it works in a cluster and both counts are read at once.
SLIDING = Function(
    b"""\
function(key, a, i, now)
  local tick_us, ticks, limit = tonumber(a[i]), tonumber(a[i + 1]), tonumber(a[i + 2])
  local hits = tonumber(a[i + 3])
  local span = tick_us * ticks
  local window = math.floor(now / span)
  local past, count, before = math.floor((now - window * span) / tick_us), 0, 0
  local held = redis.call('GET', key)
  if held then
    local was, was_count, was_before = string.match(held, '^(%d+) (%d+) (%d+)$')
    was = tonumber(was)
    if was == window or was == window + 1 then
      if was > window then window, past = was, 0 end
      count, before = tonumber(was_count), tonumber(was_before)
    elseif was == window - 1 then
      before = tonumber(was_count)
    end
  end
  local function hold()
    local ttl_ms = math.ceil((2 * ticks - past) * tick_us / 1000) + 1
    local value = string.format('%.0f %.0f %.0f', window, count, before)
    redis.call('SET', key, value, 'PX', string.format('%.0f', ttl_ms))
  end
  if hits < 0 and count + before > 0 then
    before = math.max(0, before - math.max(0, -hits - count))
    count = math.max(0, count + hits)
    hold()
  end
  local used = count * ticks + before * (ticks - past)
  if hits <= 0 then return used, false, used end
  local room = limit - hits
  if room < 0 then return -1 - (2 * ticks - past), true end
  if used > room * ticks then
    if count <= room then
      return -1 - (ticks - past - math.floor((room - count) * ticks / before)), true
    end
    return -1 - (2 * ticks - past - math.floor(room * ticks / count)), true
  end
  count = count + hits
  return used + hits * ticks, false, used, hold
end
""",
    4,
)


class SlidingWindow:
    """The reply is what is used after the hits, in as many parts a hit as the unit has ticks; or, if there was no room
    for them, -1 - the ticks until there would be.
    """

    script = Script.alone(SLIDING)
    number = 2
    holds = False
    needs_caller = False

    def scale(self, rule: Rule) -> Scale:
        """The capacity is the limit, in parts."""
        limit = rule.requests_per_unit
        tick = tick_us(rule, lambda ticks: 2 * limit * ticks <= MAX_EXACT)
        cost = rule.seconds * 1_000_000 // tick
        return Scale(tick, cost, limit * cost, limit)

    def key_part(self, limit: Limit) -> bytes:
        """The unit: what is kept are counts, which hold for any limit on it."""
        return b"sliding_%d" % limit.seconds

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """The length of a tick, ticks in the unit, limit, hits."""
        limit = check.limit
        return limit.tick_us, limit.cost, limit.per_unit, check.hits

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """A counter is (window, count, before)."""
        limit, hits = check.limit, check.hits
        ticks = limit.cost
        window, past = divmod(micros(now) // limit.tick_us, ticks)
        count = before = 0
        if held is not None:
            was, was_count, was_before = held
            if window <= was <= window + 1:
                # A clock that goes back a little stays at the beginning of the window that has begun.
                if was > window:
                    window, past = was, 0
                count, before = was_count, was_before
            elif was == window - 1:
                before = was_count
        used = count * ticks + before * (ticks - past)
        if hits <= 0:
            if not hits or not used:
                return used, None, 0.0
            before = max(0, before - max(0, -hits - count))
            count = max(0, count + hits)
            left = count * ticks + before * (ticks - past)
            return left, (window, count, before), float((window + 2) * limit.seconds)
        room = limit.per_unit - hits
        if room < 0 or used > room * ticks:
            return -1 - _wait(room, ticks, past, count, before), None, 0.0
        if not check.take:
            return used, None, 0.0
        return used + hits * ticks, (window, count + hits, before), float((window + 2) * limit.seconds)

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges what is used. Of a request within the limit, told is when the present window ends."""
        counter, limit, hits = check.counter, check.limit, check.hits
        stats = limit.stats
        stats.total += hits
        if reply >= 0:
            if hits:
                counter.over_until = 0.0
            remaining = max(0, limit.capacity - reply) // limit.cost
            stats.within += hits
            used = limit.size - remaining
            if used > limit.near:
                stats.near += min(hits, used - limit.near)
            return False, remaining, limit.seconds - int(now) % limit.seconds
        wait = -1 - reply
        stats.over += hits
        if hits <= limit.per_unit:
            # For as many hits, until then: others can only add.
            counter.level = hits
            counter.since = micros(now) // limit.tick_us
            counter.tick = counter.since + wait
            counter.refuse_until(now + min(wait * limit.tick_us / 1_000_000, limit.known_s))
        return True, 0, _seconds(limit, wait)

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """Hits that had no room have none until what is counted has slid so far."""
        counter, limit, hits = check.counter, check.limit, check.hits
        if not 0 < counter.over_until - now <= limit.known_s or hits != counter.level:
            return None
        tick = micros(now) // limit.tick_us
        if not counter.since <= tick < counter.tick:
            return None
        stats = limit.stats
        stats.total += hits
        stats.over += hits
        stats.over_local += hits
        return True, 0, _seconds(limit, counter.tick - tick)

    def hold_s(self, check: Check, reply: int) -> float:
        """Never."""
        return 0.0


def _wait(room: int, ticks: int, past: int, count: int, before: int) -> int:
    """The ticks until so much has slid away that `room` or less is used."""
    if room < 0:
        # More than the limit are never allowed: told is when nothing is counted that is now.
        return 2 * ticks - past
    if count <= room:
        return ticks - past - (room - count) * ticks // before
    return 2 * ticks - past - room * ticks // count


def _seconds(limit: Limit, ticks: int) -> int:
    return -(-ticks * limit.tick_us // 1_000_000)
