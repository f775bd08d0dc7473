"""What the engine tells Prometheus: steps, how long they took, objects, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.registry import Collector

from controlplane.engine import Engine, Step
from dragoman.metrics import Distribution, counter, gauge, histogram

_STEP_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class EngineMetrics(Collector):
    """Counts the steps of an engine; `collect` is what a registry asks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._steps = Distribution(_STEP_BOUNDS_S)
        self._changed = 0

    def stepped(self, step: Step) -> None:
        """Takes a step into account."""
        self._steps.observe(step.duration_s)
        self._changed += len(step.changed)

    def collect(self) -> Iterable[Metric]:
        """Yields the metrics as they stand."""
        pipeline = self._engine.pipeline
        kinds: dict[str, int] = {}
        faulty: dict[str, int] = {}
        for key, status in pipeline.statuses.current().items():
            kinds[key.kind] = kinds.get(key.kind, 0) + 1
            if status.faults():
                faulty[key.kind] = faulty.get(key.kind, 0) + 1
        yield histogram(
            "dragoman_step_seconds", "Compile, translate and encode one set of changes.", (), [((), self._steps)]
        )
        yield counter("dragoman_changes", "Objects changed.", (), [((), self._changed)])
        yield gauge("dragoman_objects", "Objects by kind.", ("kind",), [((k,), n) for k, n in sorted(kinds.items())])
        yield gauge(
            "dragoman_objects_faulty",
            "Objects with something wrong, by kind.",
            ("kind",),
            [((k,), n) for k, n in sorted(faulty.items())],
        )
        yield gauge("dragoman_source_faults", "What could not be read.", (), [((), len(self._engine.faults))])
        snapshots = pipeline.snapshots.current().items()
        sizes = [
            ((f"{key.namespace}/{key.name}", type_url.rpartition(".")[2]), len(found))
            for key, snapshot in sorted(snapshots, key=lambda item: item[0])
            for type_url, found in snapshot.resources.items()
        ]
        yield gauge("dragoman_resources", "Resources by Gateway and type.", ("gateway", "type"), sizes)
