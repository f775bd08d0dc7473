"""TCPRoute: which TCP listeners send their connections to which backends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controlplane.api.meta import BackendRef, Model, Resource, RouteSpec
from controlplane.api.scalars import SectionName


class TCPRouteRule(Model):
    """Where connections go."""

    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]


class TCPRouteSpec(RouteSpec):
    """Where a route attaches, and its rule."""

    rules: Annotated[tuple[TCPRouteRule, ...], Field(min_length=1, max_length=1)]


class TCPRoute(Resource):
    """Sends all connections of a listener to backends."""

    kind: Literal["TCPRoute"] = "TCPRoute"
    spec: TCPRouteSpec
