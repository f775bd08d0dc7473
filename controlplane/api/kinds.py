"""The registry: which kinds are read, in which versions, by which model."""

from __future__ import annotations

from typing import Final, NamedTuple

from controlplane.api.backend import Backend
from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.clienttrafficpolicy import ClientTrafficPolicy
from controlplane.api.core import ConfigMap, Namespace, Secret, Service
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.extensionpolicy import ExtensionPolicy
from controlplane.api.gateway import Gateway
from controlplane.api.gatewayclass import GatewayClass
from controlplane.api.grpcroute import GRPCRoute
from controlplane.api.httproute import HTTPRoute
from controlplane.api.httproutefilter import HTTPRouteFilter
from controlplane.api.ingress import Ingress, IngressClass
from controlplane.api.listenerset import ListenerSet
from controlplane.api.meta import (
    DISCOVERY_GROUP,
    ENVOY_GATEWAY_GROUP,
    GATEWAY_GROUP,
    INGRESS_GROUP,
    POLICY_GROUP,
    Resource,
)
from controlplane.api.patchpolicy import PatchPolicy
from controlplane.api.plan import Plan
from controlplane.api.proxyconfig import ProxyConfig
from controlplane.api.referencegrant import ReferenceGrant
from controlplane.api.securitypolicy import SecurityPolicy
from controlplane.api.tcproute import TCPRoute
from controlplane.api.tlsroute import TLSRoute
from controlplane.api.udproute import UDPRoute


class Served(NamedTuple):
    """A kind as it is read: its model, and the versions that the model fits, the preferred one first."""

    model: type[Resource]
    versions: tuple[str, ...]


# The models of both groups: ours, and Envoy Gateway's, whose manifests are read unchanged.
_POLICIES: Final[tuple[tuple[type[Resource], str, str], ...]] = (
    (Backend, "Backend", "Backend"),
    (BackendTrafficPolicy, "BackendTrafficPolicy", "BackendTrafficPolicy"),
    (ClientTrafficPolicy, "ClientTrafficPolicy", "ClientTrafficPolicy"),
    (ExtensionPolicy, "ExtensionPolicy", "EnvoyExtensionPolicy"),
    (HTTPRouteFilter, "HTTPRouteFilter", "HTTPRouteFilter"),
    (PatchPolicy, "PatchPolicy", "EnvoyPatchPolicy"),
    (ProxyConfig, "ProxyConfig", "EnvoyProxy"),
    (SecurityPolicy, "SecurityPolicy", "SecurityPolicy"),
)

SERVED: Final[dict[tuple[str, str], Served]] = {
    ("", "ConfigMap"): Served(ConfigMap, ("v1",)),
    ("", "Namespace"): Served(Namespace, ("v1",)),
    ("", "Secret"): Served(Secret, ("v1",)),
    ("", "Service"): Served(Service, ("v1",)),
    (DISCOVERY_GROUP, "EndpointSlice"): Served(EndpointSlice, ("v1",)),
    (INGRESS_GROUP, "Ingress"): Served(Ingress, ("v1",)),
    (INGRESS_GROUP, "IngressClass"): Served(IngressClass, ("v1",)),
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
    (POLICY_GROUP, "Plan"): Served(Plan, ("v1alpha1",)),
    **{(POLICY_GROUP, ours): Served(model, ("v1alpha1",)) for model, ours, _ in _POLICIES},
    **{(ENVOY_GATEWAY_GROUP, theirs): Served(model, ("v1alpha1",)) for model, _, theirs in _POLICIES},
}

KINDS: Final[dict[tuple[str, str], type[Resource]]] = {key: served.model for key, served in SERVED.items()}
"""The model of each (group, kind)."""
