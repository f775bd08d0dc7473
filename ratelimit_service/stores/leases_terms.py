"""What a lease is in each algorithm: how much of what was asked for is ours, for how long, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ratelimit_service.checks import Limit
from ratelimit_service.model import Algorithm

BUCKET_LEASE_S = 1.0
"""What a bucket gave out and nobody used by then is gone: so much may a burst grow by what is leased."""


class Grant(NamedTuple):
    """What came of asking for hits."""

    granted: int
    room: int | None
    """How many more the store would grant; None where its reply does not tell."""
    top: int
    """The store's reply to the last of the granted hits; `step` less for each that is not used yet."""
    step: int
    refusal: int
    """The reply that refuses as many hits as were asked for, or more."""
    until: float
    """Unix time at which what was granted is gone."""


class Terms(Protocol):
    """One algorithm's."""

    returnable: bool
    """Whether hits can be given back."""

    def grant(self, limit: Limit, asked: int, reply: int, now: float) -> Grant:
        """Reads the store's reply to `asked` hits at Unix time `now`."""
        ...


class FixedWindowTerms:
    """Counts go on over the limit: what is ours of those asked for are the ones up to it."""

    returnable = True

    def grant(self, limit: Limit, asked: int, reply: int, now: float) -> Grant:
        granted = min(asked, max(0, limit.per_unit - reply + asked))
        top = min(reply, limit.per_unit)
        return Grant(granted, limit.per_unit - top, top, 1, max(reply, limit.per_unit + 1), _window_end(limit, now))


class SlidingWindowTerms:
    """All that is asked for, or nothing. A lease ends with the part of the window in which it was counted."""

    returnable = False

    def grant(self, limit: Limit, asked: int, reply: int, now: float) -> Grant:
        until = _window_end(limit, now)
        if reply < 0:
            return Grant(0, None, limit.capacity, limit.cost, reply, until)
        return Grant(asked, (limit.capacity - reply) // limit.cost, reply, limit.cost, -1, until)


class TokenBucketTerms:
    """All that is asked for, or nothing."""

    returnable = False

    def grant(self, limit: Limit, asked: int, reply: int, now: float) -> Grant:
        level = reply if reply >= 0 else -1 - reply
        room = (limit.capacity - level) // limit.cost
        return Grant(asked if reply >= 0 else 0, room, level, limit.cost, -1 - level, now + BUCKET_LEASE_S)


def all_terms() -> Mapping[Algorithm, Terms]:
    """Returns the terms of the algorithms that have leases."""
    return {
        Algorithm.FIXED_WINDOW: FixedWindowTerms(),
        Algorithm.SLIDING_WINDOW: SlidingWindowTerms(),
        Algorithm.TOKEN_BUCKET: TokenBucketTerms(),
    }


def _window_end(limit: Limit, now: float) -> float:
    return float(int(now) // limit.seconds * limit.seconds + limit.seconds)
