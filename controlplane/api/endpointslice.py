"""EndpointSlice: addresses behind a Service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controlplane.api.core import Part
from controlplane.api.meta import Resource
from controlplane.api.scalars import Bool, Port


class EndpointConditions(Part):
    """Whether an endpoint takes traffic; unknown counts as ready."""

    ready: Bool | None = None
    serving: Bool | None = None
    terminating: Bool | None = None


class ForZone(Part):
    """A zone that should use an endpoint."""

    name: str


class EndpointHints(Part):
    """Which zones should use an endpoint."""

    for_zones: Annotated[tuple[ForZone, ...], Field(max_length=8)] = ()


class Endpoint(Part):
    """One endpoint; its addresses are interchangeable, the first is used."""

    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    """Its addresses."""
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(Part):
    """A port of all endpoints of the slice, by the name of the Service's port."""

    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: Port | None = None
    app_protocol: str | None = None


class EndpointSlice(Resource):
    """Some of a Service's endpoints; the label `kubernetes.io/service-name` names the Service."""

    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    """What the addresses are."""
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=1000)] = ()
    ports: Annotated[tuple[EndpointPort, ...], Field(max_length=100)] = ()

    @property
    def service_name(self) -> str | None:
        """Name of the Service, in the slice's own namespace."""
        return self.metadata.labels.get("kubernetes.io/service-name")
