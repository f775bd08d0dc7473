"""Drives a pipeline in tests: manifests in, resources and statuses out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controlplane.api.load import key_of, load
from controlplane.api.meta import ObjectKey
from controlplane.compile.check import check
from controlplane.compile.targets import of_document
from controlplane.pipeline import Admitted, Pipeline
from controlplane.pipeline.policies import is_policy
from controlplane.provision.binding import bind

NOW = datetime(2026, 6, 1, tzinfo=UTC)


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
    snapshots = {
        str(key): {type_url: dict(found) for type_url, found in snapshot.resources.items()}
        for key, snapshot in pipeline.snapshots.current().items()
    }
    return {"snapshots": snapshots, "statuses": dict(pipeline.statuses.current())}
