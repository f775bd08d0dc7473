"""What is known of an object besides its spec: what the writer of its status needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from controlplane.sources.kubernetes.resources import Resource

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Observed:
    """An object as the API server has it, without its spec."""

    api_version: str
    plural: str
    uid: str
    resource_version: str
    generation: int
    """Of the spec that has been handed over, so that conditions belong to it; there may be a newer one by now."""
    status: Mapping[str, Any]
    created: str
    """As the API server writes it (RFC 3339)."""


class Seen(NamedTuple):
    """The same in little space: there are tens of thousands."""

    version: str
    uid: str
    generation: int
    created: str
    status: bytes


def see(metadata: Mapping[str, Any], version: str, status: object) -> Seen:
    """Returns what is to be kept of an object."""
    encoded = _ENCODER.encode(status).encode() if status else b""
    generation = metadata.get("generation")
    return Seen(
        version,
        str(metadata.get("uid", "")),
        generation if isinstance(generation, int) else 0,
        str(metadata.get("creationTimestamp", "")),
        encoded,
    )


def observe(resource: Resource, seen: Seen) -> Observed:
    """Returns it for readers."""
    status: Mapping[str, Any] = json.loads(seen.status) if seen.status else {}
    return Observed(
        resource.api_version, resource.plural, seen.uid, seen.version, seen.generation, status, seen.created
    )
