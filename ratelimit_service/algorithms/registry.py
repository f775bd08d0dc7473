"""Which object counts for which algorithm, and what Redis has to know for all of them."""

from __future__ import annotations

from collections.abc import Iterator

from ratelimit_service.algorithms.base import Counting
from ratelimit_service.algorithms.concurrency import IN_FLIGHT, Concurrency
from ratelimit_service.algorithms.fixed_window import FIXED, FixedWindow
from ratelimit_service.algorithms.leaky_bucket import LeakyBucket
from ratelimit_service.algorithms.scripts import Script
from ratelimit_service.algorithms.sliding_window import SLIDING, SlidingWindow
from ratelimit_service.algorithms.token_bucket import BUCKET, TokenBucket
from ratelimit_service.model import Algorithm

_COUNTING: dict[Algorithm, Counting] = {
    Algorithm.FIXED_WINDOW: FixedWindow(),
    Algorithm.SLIDING_WINDOW: SlidingWindow(),
    Algorithm.TOKEN_BUCKET: TokenBucket(),
    Algorithm.LEAKY_BUCKET: LeakyBucket(),
    Algorithm.CONCURRENCY: Concurrency(),
}

# In the order of `Counting.number`.
TOGETHER = Script.together((FIXED, SLIDING, BUCKET, IN_FLIGHT))


def counting(algorithm: Algorithm) -> Counting:
    """Returns what counts for an algorithm."""
    return _COUNTING[algorithm]


def scripts() -> Iterator[Script]:
    """Yields every script that a Redis server must know."""
    found = {each.script for each in _COUNTING.values() if each.script is not None}
    yield from sorted(found, key=lambda script: script.sha)
    yield TOGETHER
