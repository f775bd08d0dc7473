"""What is told to Prometheus of quarantine: what is in it, and what searches for it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Literal

from prometheus_client import Metric
from prometheus_client.registry import Collector

from controlplane.api.meta import ObjectKey
from dragoman.metrics import Distribution, counter, gauge, histogram

Outcome = Literal["found", "unexplained", "given up"]

_ROUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class QuarantineMetrics(Collector):
    """`collect` is what a registry asks."""

    def __init__(self, quarantined: Callable[[], Iterable[ObjectKey]], unconfirmed: Callable[[], int]) -> None:
        self._quarantined = quarantined
        self._unconfirmed = unconfirmed
        self._rounds = Distribution(_ROUNDS)
        self._seconds = Distribution(_SECONDS)
        self._searches: Counter[str] = Counter({"found": 0, "unexplained": 0, "given up": 0})

    def searched(self, outcome: Outcome, rounds: int, seconds: float) -> None:
        """Takes a search into account that has ended."""
        self._searches[outcome] += 1
        self._rounds.observe(rounds)
        self._seconds.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """Yields the metrics as they stand."""
        kinds = Counter(key.kind for key in self._quarantined())
        yield gauge(
            "dragoman_quarantined_objects",
            "Objects that are not in force as they are, for Envoy rejects them; by kind.",
            ("kind",),
            [((kind,), number) for kind, number in sorted(kinds.items())] or [(("",), 0)],
        )
        yield gauge(
            "dragoman_unconfirmed_objects",
            "Objects in force whose newest version no Envoy has acknowledged yet.",
            (),
            [((), self._unconfirmed())],
        )
        yield counter(
            "dragoman_quarantine_searches",
            "Searches for what Envoy rejects, by how they ended.",
            ("outcome",),
            [((outcome,), number) for outcome, number in sorted(self._searches.items())],
        )
        yield histogram(
            "dragoman_quarantine_rounds", "What was tried at Envoys in one search.", (), [((), self._rounds)]
        )
        yield histogram("dragoman_quarantine_seconds", "How long one search took.", (), [((), self._seconds)])
