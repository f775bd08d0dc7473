"""Prometheus metrics: counts kept as plain integers on the request path, made into samples when somebody asks.

Each process has a `CollectorRegistry` of its own, passed explicitly. With N workers each of them serves its own
`/metrics`, and the process that supervises them answers with all of them, told apart by a label `worker`
(`merge_expositions`). So there are no shared files, nothing is left behind by a worker that died, and a restarted
worker's counters begin at zero, which `rate()` allows for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from dragoman.grpc_worker import StatusCode

Rows = Iterable[tuple[Sequence[str], float]]
"""(values of the labels, value)."""

LATENCY_BUCKETS_S = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


def new_registry() -> CollectorRegistry:
    """Returns a registry that tells about this process, its Python and its garbage collector."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Collected(Collector):
    """A collector from a function: `registry.register(Collected(lambda: [counter(...), gauge(...)]))`."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def counter(name: str, help: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Returns a counter (`name` without `_total`)."""
    family = CounterMetricFamily(name, help, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def gauge(name: str, help: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Returns a gauge."""
    family = GaugeMetricFamily(name, help, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


class Distribution:
    """Counts observations in buckets: some 0.2 µs each, for one thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Returns (upper bound, observations up to it), the last bound being infinite."""
        found: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            found.append((bound, seen))
        return found


def histogram(
    name: str, help: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Distribution]]
) -> Metric:
    """Returns a histogram."""
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, distribution in rows:
        family.add_metric(values, distribution.buckets(), distribution.total)
    return family


class CallMetrics(Collector):
    """A `CallObserver` of the gRPC worker: calls by method and status, and how long they took."""

    def __init__(self) -> None:
        self._handled: dict[tuple[str, StatusCode], int] = {}
        self._seconds: dict[str, Distribution] = {}

    def __call__(self, method: str, code: StatusCode, seconds: float) -> None:
        try:
            self._handled[method, code] += 1
            self._seconds[method].observe(seconds)
        except KeyError:
            self._handled.setdefault((method, code), 1)
            self._seconds.setdefault(method, Distribution()).observe(seconds)

    @property
    def seconds(self) -> Mapping[str, Distribution]:
        """How long calls took, by method."""
        return self._seconds

    def collect(self) -> Iterable[Metric]:
        yield counter(
            "dragoman_grpc_calls",
            "Calls answered, by method and gRPC status.",
            ("method", "code"),
            (((method, code.name), count) for (method, code), count in self._handled.items()),
        )
        yield histogram(
            "dragoman_grpc_call_seconds",
            "Seconds from the head of a call until its answer.",
            ("method",),
            (((method,), seconds) for method, seconds in self._seconds.items()),
        )


def exposition(registry: CollectorRegistry) -> bytes:
    """Returns what `/metrics` answers, in Prometheus' text format."""
    return generate_latest(registry)


def merge_expositions(expositions: Mapping[str, str], *, label: str = "worker") -> bytes:
    """Returns the metrics of several processes as one text; the keys become the values of `label`."""
    families: dict[str, Metric] = {}
    for value, text in expositions.items():
        for found in text_string_to_metric_families(text):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            family.samples += [
                Sample(sample.name, {**sample.labels, label: value}, sample.value) for sample in found.samples
            ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected(families.values))
    return generate_latest(registry)
