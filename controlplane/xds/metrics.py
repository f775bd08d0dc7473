"""What the discovery service counts: streams, pushes, bytes, answers, and how long clients take to answer."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controlplane.xds.order import RANK

_LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class XdsMetrics:
    """Counters by type; a type that the control plane doesn't know is counted as `other`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.streams = Gauge("dragoman_xds_streams", "Open discovery streams.", ["protocol"], registry=registry)
        self.overdue = Counter(
            "dragoman_xds_overdue_total",
            "Pushes that went on although what they waited for had not come.",
            ["awaited"],
            registry=registry,
        )
        self._refused = Counter(
            "dragoman_xds_refused_streams_total", "Streams refused or ended.", ["reason"], registry=registry
        )
        self._pushes = Counter("dragoman_xds_pushes_total", "Responses sent.", ["type"], registry=registry)
        self._bytes = Counter("dragoman_xds_push_bytes_total", "Bytes of responses sent.", ["type"], registry=registry)
        self._acks = Counter("dragoman_xds_acks_total", "Responses accepted.", ["type"], registry=registry)
        self._nacks = Counter("dragoman_xds_nacks_total", "Responses rejected.", ["type"], registry=registry)
        self._latency = Histogram(
            "dragoman_xds_push_to_ack_seconds",
            "From a response to its acknowledgement.",
            ["type"],
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self._by_type = {type_url: self._of_type(_short(type_url)) for type_url in RANK}
        self._other = self._of_type("other")

    def pushed(self, type_url: str, size: int) -> None:
        """Counts a response of so many bytes."""
        pushes, size_sum, *_ = self._by_type.get(type_url, self._other)
        pushes.inc()
        size_sum.inc(size)

    def acked(self, type_url: str, latency_s: float) -> None:
        """Counts an acknowledgement."""
        _, _, acks, _, latency = self._by_type.get(type_url, self._other)
        acks.inc()
        latency.observe(latency_s)

    def nacked(self, type_url: str) -> None:
        """Counts a rejection."""
        self._by_type.get(type_url, self._other)[3].inc()

    def refused(self, reason: str) -> None:
        """Counts a stream that was refused or ended, by one of a few reasons."""
        self._refused.labels(reason).inc()

    def _of_type(self, short: str) -> tuple[Counter, Counter, Counter, Counter, Histogram]:
        # Looked up once: labels() costs more than counting.
        return (
            self._pushes.labels(short),
            self._bytes.labels(short),
            self._acks.labels(short),
            self._nacks.labels(short),
            self._latency.labels(short),
        )


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]
