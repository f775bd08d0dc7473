"""What has been counted since the collector was told last, taken from the counts that there are for `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from dragoman.metrics import Distribution
from ratelimit_service.stats import MAX_PATH, Key, RuleStats, StatsRegistry
from ratelimit_service.statsd.names import Writer, sanitised
from ratelimit_service.statsd.sinks import Sink

LIMITS: Final = "ratelimit.service.rate_limit"
CALLS: Final = "ratelimit_server"
TIMES_AT_ONCE: Final = 100
"""How many times are told of all calls between two flushes: each stands for as many."""
_AT_A_TIME: Final = 50
"""Limits between which requests have their turn: some 0.4 ms."""

# By our names, theirs.
_OF_A_LIMIT: Final = {
    "total": "total_hits",
    "over": "over_limit",
    "near": "near_limit",
    "over_local": "over_limit_with_local_cache",
    "within": "within_limit",
    "shadow": "shadow_mode",
}
_Standing = tuple[int, ...]
_standing: Callable[[RuleStats], Any] = attrgetter(*_OF_A_LIMIT)
_NOTHING: Final[_Standing] = (0,) * len(_OF_A_LIMIT)

Counted = Iterable[tuple[str, int]]
"""Names, and what they have come to since the process began."""


class Counts:
    """Remembers what was told. What could not be sent is told with what comes after it."""

    def __init__(
        self,
        stats: StatsRegistry,
        writer: Writer,
        *,
        others: Callable[[], Counted],
        calls: Callable[[], Mapping[str, Distribution]],
    ) -> None:
        self._stats = stats
        self._writer = writer
        self._others = others
        self._calls = calls
        self._limits: dict[Key, _Standing] = {}
        self._named: dict[str, int] = {}
        self._times: dict[str, Sequence[int]] = {}

    async def flush(self, sink: Sink) -> None:
        """Tells what is new; raises OSError where the collector cannot be told, or not all of it."""
        await self._flush_others(sink)
        present = dict(self._stats.items())
        rows = iter(present.items())
        while some := list(islice(rows, _AT_A_TIME)):
            await self._flush_limits(some, sink)
            await asyncio.sleep(0)
        self._limits = {key: told for key, told in self._limits.items() if key in present}

    async def _flush_others(self, sink: Sink) -> None:
        counted = dict(self._others())
        times: dict[str, Sequence[int]] = {}
        lines: list[bytes] = []
        for method, taken in self._calls().items():
            name = f"{CALLS}.{sanitised(method.rpartition('/')[2])}"
            requests = f"{name}.total_requests"
            counted[requests] = counted.get(requests, 0) + sum(taken.counts)
            times[method] = tuple(taken.counts)
            new = [now - before for now, before in zip(times[method], self._times_of(method, taken), strict=True)]
            lines += self._timed(f"{name}.response_time", taken.bounds, new)
        for name, count in counted.items():
            # Less than before is what a store's server has taken with it that is asked no more.
            if count > self._named.get(name, 0):
                lines.append(self._writer.counter(name, count - self._named.get(name, 0)))
        if lines:
            await sink.send(lines)
        self._named |= counted
        self._times |= times

    async def _flush_limits(self, rows: Iterable[tuple[Key, RuleStats]], sink: Sink) -> None:
        standing: dict[Key, _Standing] = {}
        lines: list[bytes] = []
        for key, stats in rows:
            now: _Standing = _standing(stats)
            before = self._limits.get(key, _NOTHING)
            if now != before:
                standing[key] = now
                lines += self._grown(key, now, before)
        if lines:
            await sink.send(lines)
            self._limits |= standing

    def _grown(self, key: Key, now: _Standing, before: _Standing) -> Iterator[bytes]:
        if any(count < told for count, told in zip(now, before, strict=True)):
            # The limit was gone meanwhile, and its counts with it.
            before = _NOTHING
        name = f"{LIMITS}.{sanitised(f'{key[0][:MAX_PATH]}.{key[1]}')}"
        for what, count, told in zip(_OF_A_LIMIT.values(), now, before, strict=True):
            if count != told:
                yield self._writer.counter(f"{name}.{what}", count - told)

    def _times_of(self, method: str, taken: Distribution) -> Sequence[int]:
        return self._times.get(method) or [0] * len(taken.counts)

    def _timed(self, name: str, bounds: Sequence[float], counts: Sequence[int]) -> Iterator[bytes]:
        """Yields some times that are spread as all are: in each bucket, evenly."""
        total = sum(counts)
        told = min(total, TIMES_AT_ONCE)
        for index in range(told):
            seconds = _at((index + 0.5) * total / told, bounds, counts)
            yield self._writer.timer(name, seconds * 1000, rate=told / total)


def _at(rank: float, bounds: Sequence[float], counts: Sequence[int]) -> float:
    below = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and rank <= count:
            return below + (bound - below) * rank / count
        rank -= count
        below = bound
    return below
