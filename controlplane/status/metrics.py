"""What the status writer tells Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.registry import Collector

from dragoman.metrics import counter, gauge


class StatusMetrics(Collector):
    """Counts of writes; `collect` is what a registry asks."""

    def __init__(self, depth: Callable[[], int]) -> None:
        self._depth = depth
        self.writes: Counter[str] = Counter()
        """By kind."""
        self.skipped = 0
        self.conflicts = 0
        self.errors = 0

    def collect(self) -> Iterable[Metric]:
        """Yields the metrics as they stand."""
        rows = [((kind,), count) for kind, count in sorted(self.writes.items())]
        yield counter("dragoman_status_writes", "Statuses written, by kind.", ("kind",), rows)
        for name, help_, value in (
            ("skipped", "Statuses that were as they should be.", self.skipped),
            ("conflicts", "Writes refused because the object had changed.", self.conflicts),
            ("errors", "Writes that failed.", self.errors),
        ):
            yield counter(f"dragoman_status_{name}", help_, (), [((), value)])
        yield gauge("dragoman_status_queue", "Objects whose status waits to be written.", (), [((), self._depth())])
