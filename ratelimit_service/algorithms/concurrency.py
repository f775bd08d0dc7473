"""Limits on what is in flight: a request counts until it is told to have ended, or its lease has."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from ratelimit_service.algorithms.base import Stepped, Verdict
from ratelimit_service.algorithms.scripts import Function, Script
from ratelimit_service.algorithms.ticks import UNBOUNDED, Scale, micros
from ratelimit_service.checks import Check, Limit
from ratelimit_service.model import Rule

MAX_PLACES = 1_000
"""How many places one request can take: each is an entry of its own."""
_FEW = 8
RETRY_AFTER_S = 1
"""When a place becomes free cannot be known; the leases tell when it does at the latest, which is no help."""

# A sorted set of who is in flight, by the time (µs) at which the lease ends; several hits are as many members,
# whose names no caller has: no header's value has a NUL in it. A lease that ends later than one that begins now is of a
# time when leases were longer, or of a clock that was ahead.
IN_FLIGHT = Function(
    b"""\
function(key, a, i, now)
  local limit, lease, hits, caller = tonumber(a[i]), tonumber(a[i + 1]), tonumber(a[i + 3]), a[i + 4]
  local latest = string.format('%.0f', now + tonumber(a[i + 2]))
  local function place(n) return n == 1 and caller or caller .. '\\0' .. n end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. latest, '+inf')) do
    redis.call('ZADD', key, latest, name)
  end
  local count = redis.call('ZCARD', key)
  if a[i + 5] == '1' then
    local n = 1
    while redis.call('ZREM', key, place(n)) == 1 do n = n + 1 end
    return count - n + 1, false, count - n + 1
  end
  if hits == 0 then return count, false, count end
  local ends, ttl_ms = string.format('%.0f', now + lease), math.ceil(lease / 1000) + 1
  local function hold(places)
    for n = 1, places do redis.call('ZADD', key, ends, place(n)) end
    if redis.call('PTTL', key) < ttl_ms then redis.call('PEXPIRE', key, string.format('%.0f', ttl_ms)) end
  end
  if redis.call('ZSCORE', key, caller) then
    return count, false, count, function()
      local n = 1
      while redis.call('ZSCORE', key, place(n + 1)) do n = n + 1 end
      hold(n)
    end
  end
  if count + hits > limit then return -1 - count, true end
  return count + hits, false, count, function() hold(hits) end
end
""",
    6,
)


class InFlight:
    """Who is in flight, in memory: by caller, and in the order in which the leases end."""

    __slots__ = ("_callers", "_order", "count")

    def __init__(self) -> None:
        self._callers: dict[bytes, tuple[int, int]] = {}
        self._order: list[tuple[int, bytes]] = []
        self.count = 0

    @classmethod
    def of(cls, held: Any) -> InFlight:
        """Returns who is in flight by a state as it is held."""
        if isinstance(held, InFlight):
            return held
        state = cls()
        for ends_us, caller, places in held or ():
            state.add(caller, places, ends_us)
        return state

    @property
    def held(self) -> Any:
        """The state as it is held: of few callers a tuple, of which a store can keep a million."""
        if len(self) > _FEW:
            return self
        return tuple((ends_us, caller, self._callers[caller][1]) for ends_us, caller in self._order)

    def expire(self, now_us: int) -> None:
        """Removes those whose lease has ended."""
        ended = bisect.bisect_left(self._order, (now_us + 1, b""))
        for _, caller in self._order[:ended]:
            self.count -= self._callers.pop(caller)[1]
        del self._order[:ended]

    def shorten(self, latest_us: int) -> bool:
        """Has all leases end by then; returns whether some ended later."""
        later = bisect.bisect_left(self._order, (latest_us + 1, b""))
        callers = sorted(caller for _, caller in self._order[later:])
        del self._order[later:]
        for caller in callers:
            self._callers[caller] = latest_us, self._callers[caller][1]
            bisect.insort(self._order, (latest_us, caller))
        return bool(callers)

    def remove(self, caller: bytes) -> int:
        """Removes a caller; returns how many places it had."""
        ends, places = self._callers.pop(caller, (0, 0))
        if places:
            del self._order[bisect.bisect_left(self._order, (ends, caller))]
            self.count -= places
        return places

    def add(self, caller: bytes, places: int, ends_us: int) -> None:
        """Adds a caller that is not there."""
        self._callers[caller] = ends_us, places
        bisect.insort(self._order, (ends_us, caller))
        self.count += places

    def __contains__(self, caller: object) -> bool:
        return caller in self._callers

    def __len__(self) -> int:
        return len(self._callers)

    @property
    def ends_us(self) -> int:
        """When the last lease ends."""
        return self._order[-1][0] if self._order else 0


class Concurrency:
    """The reply is how many are in flight, the request among them; or, if there was no place for it, -1 - how many are.

    A caller that asks again keeps its places, and its lease begins anew. One that ends needs not be there.
    """

    script = Script.alone(IN_FLIGHT)
    number = 4
    holds = False
    needs_caller = True

    def scale(self, rule: Rule) -> Scale:
        """A tick is a microsecond; the cost is the length of the lease."""
        lease_us = round((rule.lease_time_s or rule.seconds) * 1_000_000)
        # Limits that requests bring have leases of all lengths.
        longest_us = UNBOUNDED if rule.refined else lease_us
        return Scale(1, lease_us, rule.requests_per_unit, rule.requests_per_unit, longest_us)

    def key_part(self, limit: Limit) -> bytes:
        """The same for all limits: who is in flight is so under any."""
        return b"in_flight"

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """The limit, the lease and the longest one in microseconds, hits, caller, 1 if it has ended."""
        limit = check.limit
        at_most = limit.per_unit if check.hits <= MAX_PLACES else -1
        return at_most, limit.cost, limit.full, check.hits, check.caller, int(check.ends)

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """The state is an `InFlight`, or what it is of few callers."""
        limit, caller = check.limit, check.caller
        state = InFlight.of(held)
        now_us = micros(now)
        state.expire(now_us)
        kept = state.held if state.shorten(now_us + limit.full) else None
        if check.ends:
            state.remove(caller)
            return state.count, state.held, state.ends_us / 1_000_000
        again = caller in state
        if not again and check.hits and (state.count + check.hits > limit.per_unit or check.hits > MAX_PLACES):
            return -1 - state.count, kept, state.ends_us / 1_000_000
        if not check.hits or not check.take:
            return state.count, kept, state.ends_us / 1_000_000
        places = state.remove(caller) if again else check.hits
        state.add(caller, places, now_us + limit.cost)
        return state.count, state.held, state.ends_us / 1_000_000

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges how many are in flight. Of an admitted request, told is when its lease ends."""
        limit, hits = check.limit, check.hits
        stats = limit.stats
        if check.ends:
            return False, max(0, limit.per_unit - reply), 0
        stats.total += hits
        if reply < 0:
            stats.over += hits
            return True, max(0, limit.per_unit + 1 + reply), RETRY_AFTER_S
        stats.within += hits
        if reply > limit.near:
            stats.near += min(hits, reply - limit.near)
        return False, max(0, limit.per_unit - reply), -(-limit.cost // 1_000_000)

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """Nothing is known: whatever ends makes room."""
        return None

    def hold_s(self, check: Check, reply: int) -> float:
        """Never."""
        return 0.0
