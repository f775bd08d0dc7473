"""Drives pipelines in tests: edits in, resources and statuses out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controlplane.api.load import key_of, load
from controlplane.api.meta import ObjectKey
from controlplane.compile.check import check
from controlplane.compile.targets import of_document
from controlplane.conditions import ObjectStatus
from controlplane.engine import Engine, Step
from controlplane.graph import Table
from controlplane.pipeline import Admitted, Pipeline
from controlplane.pipeline.policies import is_policy
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.xds.identity import GRPC_SUFFIX
from controlplane.xds.resources import Snapshot
from tests.unit.pipeline.edits import Drop, Edit, Fetch, Project, Put, Resolve, Serve, Wait

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SERVICE = "dragoman-authz"


def put(pipeline: Pipeline, document: dict[str, Any]) -> ObjectKey:
    loaded = load(document)
    assert loaded.key is not None, loaded.faults
    faults = loaded.faults or (check(loaded.object, now=NOW) if loaded.object else ())
    targets = of_document(document, loaded.key.namespace) if is_policy(loaded.key) else None
    pipeline.set_object(loaded.key, Admitted(loaded.object, tuple(faults), targets))
    return loaded.key


def drop(pipeline: Pipeline, document: dict[str, Any]) -> None:
    key = key_of(document)
    assert key is not None
    pipeline.delete_object(key)


def stabilise(pipeline: Pipeline) -> None:
    pipeline.graph.stabilise()
    bound = bind(pipeline.gateway_ports()).bound
    for key in [key for key, _ in pipeline.bindings.items() if key not in bound]:
        pipeline.bindings.delete(key)
    for key, endpoints in bound.items():
        pipeline.bindings.set(key, endpoints)
    pipeline.graph.stabilise()


def output(pipeline: Pipeline) -> dict[str, Any]:
    """Everything that the pipeline says, in a form that compares."""
    snapshots: dict[str, Snapshot] = {f"{k.namespace}/{k.name}": v for k, v in pipeline.snapshots.current().items()}
    snapshots |= pipeline.guards.snapshots.current()
    snapshots |= {f"{k.namespace}/{k.name}{GRPC_SUFFIX}": v for k, v in pipeline.grpc.snapshots.current().items()}
    return {
        "snapshots": {owner: plain(snapshot) for owner, snapshot in sorted(snapshots.items())},
        "statuses": dict(pipeline.statuses.current()),
    }


def plain(snapshot: Snapshot) -> dict[str, Any]:
    return {type_url: dict(found) for type_url, found in snapshot.resources.items()}


@dataclass(slots=True)
class Warm:
    """An engine that lives through edits, and what those who listen to its steps have heard in all."""

    clock_s: float = 0.0
    snapshots: dict[str, Snapshot] = field(default_factory=dict[str, Snapshot])
    statuses: dict[ObjectKey, ObjectStatus] = field(default_factory=dict[ObjectKey, ObjectStatus])
    documents: dict[ObjectKey, dict[str, Any]] = field(default_factory=dict[ObjectKey, dict[str, Any]])
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine(bind=bind, now=lambda: datetime.now(UTC), clock=lambda: self.clock_s)

    def take(self, edits: Iterable[Edit]) -> None:
        """Takes edits in one go, as far as they come by the same way."""
        written: dict[ObjectKey, dict[str, Any] | None] = {}
        for edit in edits:
            if isinstance(edit, Put):
                key = key_of(edit.document)
                assert key is not None
                self.documents[key] = written[key] = edit.document
            elif isinstance(edit, Drop) and self.documents:
                key = sorted(self.documents)[edit.which % len(self.documents)]
                written[key] = None
                del self.documents[key]
            else:
                self._hear(self._other(edit))
        upserted = tuple(RawObject(k, d, Origin("all.yaml")) for k, d in written.items() if d is not None)
        self._hear(self.engine.apply(Changes(upserted, tuple(k for k, d in written.items() if d is None))))

    def heard(self) -> dict[str, Any]:
        """What all steps have said, in the form of `output`."""
        snapshots = {owner: plain(snapshot) for owner, snapshot in sorted(self.snapshots.items())}
        return {"snapshots": snapshots, "statuses": self.statuses}

    def cold(self) -> Pipeline:
        """Returns a pipeline that was given at once what this one has come to."""
        warm, made = self.engine.pipeline, Pipeline()
        for key, admitted in warm.objects.everything():
            made.set_object(key, admitted)
        tables: list[tuple[Table[Any, Any], Table[Any, Any]]] = [
            (made.objects.accepted, warm.objects.accepted),
            (made.objects.resolved, warm.objects.resolved),
            (made.objects.key_sets, warm.objects.key_sets),
            (made.guards.endpoints, warm.guards.endpoints),
            (made.guards.lingering, warm.guards.lingering),
            (made.grpc.wanted, warm.grpc.wanted),
        ]
        for mine, theirs in tables:
            for key, value in theirs.items():
                mine.set(key, value)
        stabilise(made)
        return made

    def _other(self, edit: Edit) -> Step:
        if isinstance(edit, Resolve) and edit.addresses is not None:
            return self.engine.resolve({edit.host: edit.addresses})
        if isinstance(edit, Resolve):
            self.engine.pipeline.objects.resolved.delete(edit.host)
        elif isinstance(edit, Fetch):
            return self.engine.take_key_sets({edit.uri: edit.text})
        elif isinstance(edit, Serve):
            return self.engine.serve_at({SERVICE: edit.addresses})
        elif isinstance(edit, Project):
            return self.engine.project_for_grpc("demo/edge", wanted=edit.wanted)
        elif isinstance(edit, Wait):
            self.clock_s += edit.seconds
        return self.engine.age()

    def _hear(self, step: Step) -> None:
        _update(self.snapshots, step.snapshots)
        _update(self.statuses, step.statuses)


def _update(known: dict[Any, Any], news: Mapping[Any, Any]) -> None:
    for key, value in news.items():
        if value is None:
            known.pop(key, None)
        else:
            known[key] = value
