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
    counter.level = level
    counter.tick = int(now * limit.tps)
    # A little late rather than early: `known_over` looks closer.
    counter.over_until = now + (level + limit.cost - limit.capacity) / (limit.drain * limit.tps) + 0.001
    return True, max(0, limit.capacity - level) // limit.cost, _wait(limit, level, hits)


def known_over(check: Check, now: float) -> Verdict | None:
    """Judges without the store where an earlier reply settles it; None where the store must be asked."""
    counter, limit, hits = check
    if counter.over_until <= now:
        return None
    if limit.bucket:
        level = counter.level - max(0, int(now * limit.tps) - counter.tick) * limit.drain
        if not hits or level + limit.cost <= limit.capacity:
            return None
        verdict = True, 0, _wait(limit, level, hits)
    else:
        verdict = True, 0, limit.seconds - int(now) % limit.seconds
    limit.stats.total += hits
    limit.stats.over += hits
    limit.stats.over_local += hits
    return verdict


def _wait(limit: Limit, level: int, hits: int) -> int:
    # More hits than the bucket holds are never allowed: told is when it is full.
    return _seconds(limit, level + min(hits * limit.cost, limit.capacity) - limit.capacity)


def _seconds(limit: Limit, level: int) -> int:
    """The seconds in which so much drains, rounded up: who waits so long is not refused for a fraction."""
    per_second = limit.drain * limit.tps
    return -(-level // per_second) if per_second else limit.seconds
