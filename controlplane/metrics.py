"""What the engine tells Prometheus: how long each stage takes, how far its clients are, objects, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import Metric
from prometheus_client.registry import Collector

from controlplane.api.meta import ObjectKey
from controlplane.engine import Engine, Step
from controlplane.tracing import Tracer
from controlplane.tracing.change import Delivery, Stages
from controlplane.xds.identity import AUTHZ_OWNER, GRPC_SUFFIX, RATE_LIMIT_OWNER
from dragoman.metrics import Distribution, counter, gauge, histogram

_STEP_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_CONVERGENCE_BOUNDS_S: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_OBJECT_BOUNDS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
_STAGES: Final = ("wait", "load", "compile", "publish")
_CLIENTS: Final = ("envoy", "grpc", "authz", "ratelimit")


class EngineMetrics(Collector):
    """Counts what an engine does; `collect` is what a registry asks, and costs nothing for each object.

    `waiting` says how many objects are read and yet to be taken, where the source can tell.
    """

    def __init__(self, engine: Engine) -> None:
        self.waiting: Callable[[], int] = lambda: 0
        self._engine = engine
        self._steps = Distribution(_STEP_BOUNDS_S)
        self._stages = {stage: Distribution(_STEP_BOUNDS_S) for stage in _STAGES}
        self._objects_a_step = Distribution(_OBJECT_BOUNDS)
        self._convergence = {clients: Distribution(_CONVERGENCE_BOUNDS_S) for clients in _CLIENTS}
        self._unfinished: Counter[tuple[str, str]] = Counter()
        self._changed = 0
        self._kinds: Counter[str] = Counter()
        self._faulty_kinds: Counter[str] = Counter()
        self._known: dict[ObjectKey, bool] = {}
        self.tracer = Tracer(on_done=self._delivered, on_stages=self._staged)

    def stepped(self, step: Step) -> None:
        """Takes a step into account."""
        self._steps.observe(step.duration_s)
        self._changed += len(step.changed)
        for key, status in step.statuses.items():
            before = self._known.pop(key, None)
            if before is not None:
                self._kinds[key.kind] -= 1
                self._faulty_kinds[key.kind] -= before
            if status is not None:
                self._known[key] = faulty = bool(status.faults())
                self._kinds[key.kind] += 1
                self._faulty_kinds[key.kind] += faulty

    def collect(self) -> Iterable[Metric]:
        """Yields the metrics as they stand."""
        yield histogram(
            "dragoman_step_seconds", "Compile, translate and encode one set of changes.", (), [((), self._steps)]
        )
        yield histogram(
            "dragoman_stage_seconds",
            "Stages of a change: waiting to be taken, loading and checking, compiling to bytes, publishing.",
            ("stage",),
            [((stage,), found) for stage, found in self._stages.items()],
        )
        yield histogram("dragoman_step_objects", "Objects that one step took.", (), [((), self._objects_a_step)])
        yield counter("dragoman_changes", "Objects changed.", (), [((), self._changed)])
        yield gauge("dragoman_changes_waiting", "Objects read and yet to be taken.", (), [((), self.waiting())])
        yield from self._delivery()
        yield from self._objects()
        yield from self._resources()

    def _delivery(self) -> Iterable[Metric]:
        yield histogram(
            "dragoman_convergence_seconds",
            "From seeing a change until the last client of a Gateway or service has acknowledged it.",
            ("clients",),
            [((clients,), found) for clients, found in self._convergence.items()],
        )
        yield counter(
            "dragoman_convergence_unfinished",
            "Changes that did not come to that: rejected by a client, or overtaken by too many others.",
            ("clients", "reason"),
            sorted(self._unfinished.items()),
        )
        yield gauge("dragoman_deliveries_open", "Changes on their way to clients.", (), [((), self.tracer.open)])
        yield gauge("dragoman_clients_behind", "Clients with a change to answer.", (), [((), self.tracer.behind)])

    def _objects(self) -> Iterable[Metric]:
        yield gauge("dragoman_objects", "Objects by kind.", ("kind",), _rows(self._kinds))
        yield gauge(
            "dragoman_objects_faulty", "Objects with something wrong, by kind.", ("kind",), _rows(self._faulty_kinds)
        )
        yield gauge("dragoman_source_faults", "What could not be read.", (), [((), len(self._engine.faults))])
        yield counter(
            "dragoman_recomputed",
            "Values computed, by what they are: what a change has cost.",
            ("values",),
            [((name,), n) for name, n in sorted(self._engine.pipeline.graph.recomputed.items())],
        )

    def _resources(self) -> Iterable[Metric]:
        counts: list[tuple[tuple[str, str], float]] = []
        sizes: list[tuple[tuple[str, str], float]] = []
        snapshots = self._engine.pipeline.snapshots.current().items()
        for key, snapshot in sorted(snapshots, key=lambda item: item[0]):
            for type_url, found in snapshot.resources.items():
                labels = (f"{key.namespace}/{key.name}", type_url.rpartition(".")[2])
                counts.append((labels, len(found)))
                sizes.append((labels, sum(len(each.body) for each in found.values())))
        yield gauge("dragoman_resources", "Resources by Gateway and type.", ("gateway", "type"), counts)
        yield gauge("dragoman_resource_bytes", "Bytes of them.", ("gateway", "type"), sizes)

    def _staged(self, stages: Stages, objects: int) -> None:
        for stage, seconds in zip(
            _STAGES, (stages.wait_s, stages.load_s, stages.compile_s, stages.publish_s), strict=True
        ):
            self._stages[stage].observe(seconds)
        if objects:
            self._objects_a_step.observe(objects)

    def _delivered(self, delivery: Delivery, seconds: float) -> None:
        clients = _clients_of(delivery.owner)
        if delivery.state == "settled":
            self._convergence[clients].observe(seconds)
        elif delivery.state in ("rejected", "overtaken"):
            self._unfinished[clients, delivery.state] += 1


def _clients_of(owner: str) -> str:
    if owner.endswith(GRPC_SUFFIX):
        return "grpc"
    return {AUTHZ_OWNER: "authz", RATE_LIMIT_OWNER: "ratelimit"}.get(owner, "envoy")


def _rows(counts: Counter[str]) -> list[tuple[tuple[str], float]]:
    return [((kind,), count) for kind, count in sorted(counts.items())]
