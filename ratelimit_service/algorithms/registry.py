"""Which object counts for which algorithm."""

from __future__ import annotations

from collections.abc import Iterator

from ratelimit_service.algorithms.base import Counting, Script
from ratelimit_service.algorithms.fixed_window import FixedWindow
from ratelimit_service.algorithms.token_bucket import TokenBucket
from ratelimit_service.model import Algorithm

_COUNTING: dict[Algorithm, Counting] = {
    Algorithm.FIXED_WINDOW: FixedWindow(),
    Algorithm.TOKEN_BUCKET: TokenBucket(),
}


def counting(algorithm: Algorithm) -> Counting:
    """Returns what counts for an algorithm; `Rule.fault` has refused those that are not supported."""
    return _COUNTING[algorithm]


def scripts() -> Iterator[Script]:
    """Yields every script that a Redis server must know."""
    for each in _COUNTING.values():
        if each.script is not None:
            yield each.script
