"""Judges what a store replied: over the limit or not, how much is left, and for how long."""

from __future__ import annotations

from ratelimit_service.checks import Check, Limit

Verdict = tuple[bool, int, int]
"""Over the limit; what remains; seconds until the limit resets, or until the request may come again if it is over."""


def fixed_window(check: Check, count: int, now: float) -> Verdict:
    """Judges the count after this request's hits were added, in the window that `now` falls into."""
    counter, limit, hits = check
    second = int(now)
    reset_s = limit.seconds - second % limit.seconds
    left = limit.per_unit - count
    stats = limit.stats
    stats.total += hits
    if left >= 0:
        stats.within += hits
        if count > limit.near:
            stats.near += min(hits, count - limit.near)
        return False, left, reset_s
    before = count - hits
    if before >= limit.per_unit:
        stats.over += hits
    else:
        stats.over += -left
        stats.near += limit.per_unit - max(limit.near, before)
    counter.over_until = second + reset_s
    return True, 0, reset_s


def token_bucket(check: Check, reply: int, now: float) -> Verdict:
    """Judges a bucket's level: as it became (0 or more), or, of a request that was refused, -1 - the level it met."""
    counter, limit, hits = check
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
    counter.over_until = now + (level + limit.cost - limit.capacity) / (limit.drain * limit.tps)
    remaining = max(0, limit.capacity - level) // limit.cost
    return True, remaining, _seconds(limit, level + hits * limit.cost - limit.capacity)


def known_over(check: Check, now: float) -> Verdict | None:
    """Judges without the store where an earlier reply settles it; None where the store must be asked."""
    counter, limit, hits = check
    if counter.over_until <= now or (limit.bucket and not hits):
        return None
    limit.stats.total += hits
    limit.stats.over += hits
    limit.stats.over_local += hits
    if not limit.bucket:
        return True, 0, limit.seconds - int(now) % limit.seconds
    missing = int((counter.over_until - now) * limit.drain * limit.tps) + (hits - 1) * limit.cost
    return True, 0, _seconds(limit, missing)


def _seconds(limit: Limit, level: int) -> int:
    # At the most what a full bucket takes, rounded up: a client that waits so long is not refused for a fraction.
    per_second = limit.drain * limit.tps
    if per_second == 0:
        return limit.seconds
    return -(-min(level, limit.capacity) // per_second)
