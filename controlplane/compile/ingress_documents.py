"""The objects that an Ingress expands to: how they are called, and where each part of them is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.api.ingress import Ingress
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.hosts import ANY

RESERVED_PREFIX: Final = "dragoman-ingress."
"""Names that begin with it are those of what Ingresses expand to."""
EXPANDED_FROM: Final = "dragoman.dev/expanded-from"
"""Annotation of what is expanded: the name of the Ingress. No source gives objects that have it."""
_MAX_NAME: Final = 180


@dataclass(frozen=True, slots=True)
class Place:
    """A field of an Ingress."""

    ingress: ObjectKey
    field: str


@dataclass(frozen=True, slots=True)
class Made:
    """An object that an Ingress expands to; `places` are the fields of the Ingress behind those of the object."""

    key: ObjectKey
    document: Mapping[str, Any]
    places: tuple[tuple[str, Place], ...] = ()
    redirects: bool = False
    """It does nothing but send requests to HTTPS."""

    def place_of(self, field: str) -> Place | None:
        """Returns what is behind a field: the place of the longest beginning of its path that has one."""
        behind = [(at, place) for at, place in self.places if _begins(field, at)]
        return max(behind, key=lambda each: len(each[0]), default=("", None))[1]


def name_for(ingress: Ingress | str, part: str) -> str:
    """Returns the name of a part of what an Ingress expands to; `part` is a DNS label, so no two are alike."""
    name = ingress if isinstance(ingress, str) else ingress.metadata.name
    if len(name) > _MAX_NAME:
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        name = f"{name[:_MAX_NAME].rstrip('.-')}.{digest}"
    return f"{RESERVED_PREFIX}{name}.{part}"


def short(host: str) -> str:
    """Returns a DNS label that stands for a host."""
    return "any" if host == ANY else hashlib.blake2b(host.encode(), digest_size=5).hexdigest()


def document(
    ingress: Ingress,
    group: str,
    kind: str,
    part: str,
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Made:
    """Returns a part of what an Ingress expands to: as old as that, and of its namespace."""
    metadata: dict[str, Any] = {
        "name": name_for(ingress, part),
        "namespace": ingress.metadata.namespace,
        "annotations": {EXPANDED_FROM: ingress.metadata.name, **(annotations or {})},
    }
    if ingress.metadata.creation_timestamp is not None:
        metadata["creationTimestamp"] = ingress.metadata.creation_timestamp.isoformat()
    version = "v1" if group == GATEWAY_GROUP else "v1alpha1"
    made = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": metadata, "spec": spec}
    return Made(ObjectKey(group, kind, ingress.metadata.namespace, metadata["name"]), made)


def placed(made: Made, places: Iterable[tuple[str, Place]]) -> Made:
    """Returns an object with what is behind its fields."""
    return Made(made.key, made.document, tuple(places), made.redirects)


def _begins(field: str, at: str) -> bool:
    return not at or field == at or (field.startswith(at) and field[len(at)] in ".[")
