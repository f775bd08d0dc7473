"""Canaries: Ingresses that take a share of the requests of another with the same host and path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.api.ingress import Ingress, IngressBackend
from controlplane.compile.ingress_annotations import Settings

Backend = tuple[Any, ...]
"""An IngressBackend, its field, its weight, and the Ingress that it is of if that is another."""


@dataclass(frozen=True, slots=True)
class CanaryPath:
    """A path of a canary: its backend, and what its annotations ask for."""

    ingress: Ingress
    asked: Settings
    backend: IngressBackend
    field: str


def split(canary: CanaryPath, main: Backend) -> Iterator[tuple[Mapping[str, str] | None, list[Backend]]]:
    """Yields the header that requests must have, if any, and the backends that those requests go to."""
    asked = canary.asked.canary
    assert asked is not None
    own = (canary.backend, canary.field, 1, canary.ingress.key)
    if asked.header is not None and asked.value is None:
        yield {"name": asked.header, "value": "always"}, [own]
        yield {"name": asked.header, "value": "never"}, [main]
    elif asked.header is not None and asked.value is not None:
        type_ = "RegularExpression" if asked.pattern else "Exact"
        yield {"type": type_, "name": asked.header, "value": asked.value}, [own]
    if asked.weight:
        share = (*own[:2], asked.weight, own[3])
        yield None, [(*main[:2], asked.total - asked.weight), share]
    else:
        yield None, [main]
