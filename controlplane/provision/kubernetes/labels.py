"""Labels, annotations and owners of what is made for a Gateway: what has them is found again and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.provision.kubernetes.wanted import Document, WantedGateway
from controlplane.provision.names import resource_name

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
NAME: Final = "app.kubernetes.io/name"
GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"
SELECTOR: Final = f"{MANAGED_BY}=dragoman,{NAME}=envoy"
"""Selects all that is made for Gateways."""
CONTROLLER: Final = "dragoman.dev/controller"
"""Which controller it belongs to, where several run in a cluster."""
APPLIED: Final = "dragoman.dev/applied"
"""The hash of what was applied."""
BOOTSTRAP: Final = "dragoman.dev/bootstrap"
"""On pods: the hash of what Envoy reads once, when it starts."""

OWN_LABELS: Final = frozenset({MANAGED_BY, NAME, GATEWAY_NAME})

_LABEL_LIMIT: Final = 63


def selector_labels(gateway: WantedGateway) -> dict[str, str]:
    """Returns the labels that tell what belongs to a Gateway; they never change."""
    name = gateway.key.name
    return {
        MANAGED_BY: "dragoman",
        NAME: "envoy",
        # A Gateway's name can be longer than a label's value.
        GATEWAY_NAME: name if len(name) <= _LABEL_LIMIT else resource_name(name),
    }


def metadata(
    gateway: WantedGateway,
    controller_name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Document:
    """Returns the metadata of an object that is made for a Gateway, and goes with it."""
    owner = {
        "apiVersion": gateway.api_version,
        "kind": "Gateway",
        "name": gateway.key.name,
        "uid": gateway.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": resource_name(gateway.key.name),
        "namespace": gateway.key.namespace,
        "labels": {**gateway.labels, **(labels or {}), **selector_labels(gateway)},
        "annotations": {**gateway.annotations, **(annotations or {}), CONTROLLER: controller_name},
        "ownerReferences": [owner],
    }


def sealed(document: Document) -> Document:
    """Returns a document with the annotation that tells what it says."""
    annotations = {**document["metadata"].get("annotations", {}), APPLIED: digest(document)}
    return {**document, "metadata": {**document["metadata"], "annotations": annotations}}


def digest(value: object) -> str:
    """Returns the hash of a document, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def annotation(document: Mapping[str, Any], name: str) -> str:
    """Returns an annotation of an object, empty where it has none."""
    return str(_named(document, "annotations").get(name, ""))


def is_managed(document: Mapping[str, Any]) -> bool:
    """Says whether an object was made for a Gateway by this product."""
    labels = _named(document, "labels")
    return labels.get(MANAGED_BY) == "dragoman" and labels.get(NAME) == "envoy"


def _named(document: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document.get("metadata", {})
    return found.get(what) or {}


def owner_of(document: Mapping[str, Any]) -> ObjectKey | None:
    """Returns the Gateway that controls an object."""
    found = document.get("metadata", {})
    for each in cast("list[Mapping[str, Any]]", found.get("ownerReferences") or []):
        group = str(each.get("apiVersion", "")).partition("/")[0]
        if each.get("controller") and each.get("kind") == "Gateway" and group == GATEWAY_GROUP:
            return ObjectKey(GATEWAY_GROUP, "Gateway", str(found.get("namespace", "")), str(each.get("name", "")))
    return None
