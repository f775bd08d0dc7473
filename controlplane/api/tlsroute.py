"""TLSRoute: which TLS connections, by server name, go to which backends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controlplane.api.meta import BackendRef, Model, Resource, RouteSpec
from controlplane.api.scalars import Hostname, SectionName, refuse


class TLSRouteRule(Model):
    """Where connections go."""

    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]


class TLSRouteSpec(RouteSpec):
    """Where a route attaches, for which server names, and its rule."""

    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=1024)] = ()
    """Server names (SNI) to match; required in version v1."""
    rules: Annotated[tuple[TLSRouteRule, ...], Field(min_length=1, max_length=1)]


class TLSRoute(Resource):
    """Sends TLS connections to backends by the server name that the client asks for."""

    kind: Literal["TLSRoute"] = "TLSRoute"
    spec: TLSRouteSpec

    @model_validator(mode="after")
    def _has_hostnames(self) -> TLSRoute:
        if not self.spec.hostnames and self.api_version.endswith("/v1"):
            raise refuse("expected at least one host name", "spec.hostnames")
        return self
