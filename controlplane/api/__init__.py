"""The vocabulary: typed models of every kind that Dragoman reads, a module a kind."""

from __future__ import annotations

from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.core import ConfigMap, Namespace, Secret, Service
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.gateway import Gateway
from controlplane.api.gatewayclass import GatewayClass
from controlplane.api.grpcroute import GRPCRoute
from controlplane.api.httproute import HTTPRoute
from controlplane.api.listenerset import ListenerSet
from controlplane.api.meta import DISCOVERY_GROUP, GATEWAY_GROUP, ObjectKey, Resource
from controlplane.api.referencegrant import ReferenceGrant
from controlplane.api.tcproute import TCPRoute
from controlplane.api.tlsroute import TLSRoute
from controlplane.api.udproute import UDPRoute

__all__ = ["KINDS", "ObjectKey", "Resource"]

KINDS: dict[tuple[str, str], type[Resource]] = {
    ("", "ConfigMap"): ConfigMap,
    ("", "Namespace"): Namespace,
    ("", "Secret"): Secret,
    ("", "Service"): Service,
    (DISCOVERY_GROUP, "EndpointSlice"): EndpointSlice,
    (GATEWAY_GROUP, "BackendTLSPolicy"): BackendTLSPolicy,
    (GATEWAY_GROUP, "GRPCRoute"): GRPCRoute,
    (GATEWAY_GROUP, "Gateway"): Gateway,
    (GATEWAY_GROUP, "GatewayClass"): GatewayClass,
    (GATEWAY_GROUP, "HTTPRoute"): HTTPRoute,
    (GATEWAY_GROUP, "ListenerSet"): ListenerSet,
    (GATEWAY_GROUP, "ReferenceGrant"): ReferenceGrant,
    (GATEWAY_GROUP, "TCPRoute"): TCPRoute,
    (GATEWAY_GROUP, "TLSRoute"): TLSRoute,
    (GATEWAY_GROUP, "UDPRoute"): UDPRoute,
}
"""The model of each group and kind."""
