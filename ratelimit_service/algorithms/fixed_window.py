"""Fixed windows, decision for decision as envoyproxy/ratelimit: a count from one multiple of the unit to the next."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.algorithms.scripts import Function
from ratelimit_service.algorithms.ticks import Scale
from ratelimit_service.checks import Check, Limit
from ratelimit_service.model import Rule

# For requests that other algorithms judge too; alone, and with its like, it is INCRBY.
FIXED = Function(
    b"""\
function(key, a, i)
  local count = redis.call('INCRBY', key, a[i])
  if count == tonumber(a[i]) then redis.call('EXPIRE', key, a[i + 2]) end
  return count, count > tonumber(a[i + 1])
end
""",
    3,
)

# Hits that are given back: nobody has more than the limit afterwards. ARGV: the hits, below zero; the window's seconds.
RETURNED = b"""\
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if count < 0 then count = redis.call('INCRBY', KEYS[1], -count) end
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
"""


def window_start(second: int, seconds: int, begun: int) -> int:
    """Returns where the window of a second begins; a clock that goes back a little stays in the one that has begun."""
    start = second - second % seconds
    return begun if 0 < begun - start <= seconds else start


class FixedWindow:
    """The reply is the count after the hits were added, whether or not they are over the limit."""

    script = None
    number = 1
    holds = False
    needs_caller = False

    def scale(self, rule: Rule) -> Scale:
        """A window has room for the limit."""
        return Scale(size=rule.requests_per_unit)

    def key_part(self, limit: Limit) -> bytes:
        """Nothing: keys are named as envoyproxy/ratelimit names them; windows that it has not got have their own."""
        return b"" if limit.rule.unit_multiplier == 1 else b"%ds_" % limit.seconds

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """Hits, limit, seconds."""
        return check.hits, check.limit.per_unit, check.limit.seconds

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges the count, in the window that `now` falls into."""
        limit, hits = check.limit, check.hits
        second = int(now)
        reset_s = limit.seconds - second % limit.seconds
        left = limit.per_unit - reply
        stats = limit.stats
        stats.total += hits
        if left >= 0:
            stats.within += hits
            if reply > limit.near:
                stats.near += min(hits, reply - limit.near)
            return False, left, reset_s
        before = reply - hits
        if before >= limit.per_unit:
            stats.over += hits
        else:
            stats.over += -left
            stats.near += limit.per_unit - max(limit.near, before)
            if limit.rule.shadow_mode:
                # All of them will count as let through in shadow mode, but these were within the limit.
                stats.shadow -= limit.per_unit - before
        check.counter.refuse_until(second + min(reset_s, limit.known_s))
        return True, 0, reset_s

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """A window that is over stays over until it ends."""
        limit, hits = check.limit, check.hits
        # A clock that goes back may be in another window.
        if not 0 < check.counter.over_until - now <= limit.known_s:
            return None
        stats = limit.stats
        stats.total += hits
        stats.over += hits
        stats.over_local += hits
        return True, 0, limit.seconds - int(now) % limit.seconds

    def hold_s(self, check: Check, reply: int) -> float:
        """Never."""
        return 0.0
