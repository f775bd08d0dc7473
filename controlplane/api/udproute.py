"""UDPRoute: which UDP listeners send their datagrams to which backends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controlplane.api.meta import BackendRef, Model, Resource, RouteSpec
from controlplane.api.scalars import SectionName


class UDPRouteRule(Model):
    """Where datagrams go."""

    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]


class UDPRouteSpec(RouteSpec):
    """Where a route attaches, and its rule."""

    rules: Annotated[tuple[UDPRouteRule, ...], Field(min_length=1, max_length=1)]


class UDPRoute(Resource):
    """Sends all datagrams of a listener to backends."""

    kind: Literal["UDPRoute"] = "UDPRoute"
    spec: UDPRouteSpec
