"""Manifests for tests of the models, as data."""

from __future__ import annotations

from typing import Any

import yaml

from controlplane.api.load import Loaded, load
from controlplane.api.meta import Resource


def read(text: str) -> Any:
    return yaml.safe_load(text)


def route(rule: str = "{}", **spec: Any) -> dict[str, Any]:
    """An HTTPRoute with one rule, given as YAML."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "open", "namespace": "demo"},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [read(rule)], **spec},
    }


def gateway(listener: str, **spec: Any) -> dict[str, Any]:
    """A Gateway with the listeners that a YAML list gives."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "demo"},
        "spec": {"gatewayClassName": "dragoman", "listeners": read(listener), **spec},
    }


def policy(kind: str, spec: str, group: str = "dragoman.dev") -> dict[str, Any]:
    """A policy for the route `open`; its spec but the target as YAML."""
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "open"}
    return {
        "apiVersion": f"{group}/v1alpha1",
        "kind": kind,
        "metadata": {"name": "guard", "namespace": "demo"},
        "spec": {"targetRefs": [target], **(read(spec) or {})},
    }


def accept(document: dict[str, Any]) -> Any:
    """The object of a manifest that has no faults."""
    loaded = load(document)
    assert loaded.faults == ()
    assert isinstance(loaded.object, Resource)
    return loaded.object


def fault(document: dict[str, Any]) -> tuple[str, str]:
    """Path and message of the only fault of a manifest."""
    loaded: Loaded = load(document)
    assert loaded.object is None
    assert len(loaded.faults) == 1, loaded.faults
    return loaded.faults[0].path, loaded.faults[0].message
