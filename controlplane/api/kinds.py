"""The registry: which kinds are read, in which versions, by which model."""

from __future__ import annotations

from typing import Final, NamedTuple

from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.core import ConfigMap, Namespace, Secret, Service
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.gateway import Gateway
from controlplane.api.gatewayclass import GatewayClass
from controlplane.api.grpcroute import GRPCRoute
from controlplane.api.httproute import HTTPRoute
from controlplane.api.listenerset import ListenerSet
from controlplane.api.meta import DISCOVERY_GROUP, GATEWAY_GROUP, Resource
from controlplane.api.referencegrant import ReferenceGrant
from controlplane.api.tcproute import TCPRoute
from controlplane.api.tlsroute import TLSRoute
from controlplane.api.udproute import UDPRoute


class Served(NamedTuple):
    """A kind as it is read: its model, and the versions that the model fits, the preferred one first."""

    model: type[Resource]
    versions: tuple[str, ...]


SERVED: Final[dict[tuple[str, str], Served]] = {
    ("", "ConfigMap"): Served(ConfigMap, ("v1",)),
    ("", "Namespace"): Served(Namespace, ("v1",)),
    ("", "Secret"): Served(Secret, ("v1",)),
    ("", "Service"): Served(Service, ("v1",)),
    (DISCOVERY_GROUP, "EndpointSlice"): Served(EndpointSlice, ("v1",)),
    (GATEWAY_GROUP, "BackendTLSPolicy"): Served(BackendTLSPolicy, ("v1", "v1alpha3")),
    (GATEWAY_GROUP, "GRPCRoute"): Served(GRPCRoute, ("v1", "v1alpha2")),
    (GATEWAY_GROUP, "Gateway"): Served(Gateway, ("v1", "v1beta1")),
    (GATEWAY_GROUP, "GatewayClass"): Served(GatewayClass, ("v1", "v1beta1")),
    (GATEWAY_GROUP, "HTTPRoute"): Served(HTTPRoute, ("v1", "v1beta1")),
    (GATEWAY_GROUP, "ListenerSet"): Served(ListenerSet, ("v1",)),
    (GATEWAY_GROUP, "ReferenceGrant"): Served(ReferenceGrant, ("v1", "v1beta1", "v1alpha2")),
    (GATEWAY_GROUP, "TCPRoute"): Served(TCPRoute, ("v1", "v1alpha2")),
    (GATEWAY_GROUP, "TLSRoute"): Served(TLSRoute, ("v1", "v1alpha3", "v1alpha2")),
    (GATEWAY_GROUP, "UDPRoute"): Served(UDPRoute, ("v1", "v1alpha2")),
}

KINDS: Final[dict[tuple[str, str], type[Resource]]] = {key: served.model for key, served in SERVED.items()}
"""The model of each (group, kind)."""
