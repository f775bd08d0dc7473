"""Gateways: which of their listeners are valid, and what is wrong with the others (Gateway API: GatewaySpec)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.api.core import Secret
from controlplane.api.gateway import Gateway, Listener
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.grants import permitted
from controlplane.compile.view import View
from controlplane.conditions import Condition, false, true
from controlplane.ir import Certificate, FilterChain, PortListener

CONTROLLER_NAME = "dragoman.dev/gateway-controller"
_KINDS_BY_PROTOCOL: Mapping[str, tuple[str, ...]] = {"HTTP": ("HTTPRoute",), "HTTPS": ("HTTPRoute",)}


@dataclass(frozen=True, slots=True)
class GatewayListener:
    """A listener with the verdict on it. Only an accepted one serves; a valid one also has what it refers to."""

    name: str
    port: int
    protocol: str
    hostname: str | None
    kinds: tuple[str, ...]
    certificates: tuple[str, ...]
    spec: Listener
    conditions: tuple[Condition, ...]

    @property
    def serves(self) -> bool:
        """Says whether the listener is to be programmed."""
        return all(c.status == "True" for c in self.conditions if c.type in ("Accepted", "ResolvedRefs")) or (
            self.accepted and self.protocol == "HTTP" and bool(self.kinds)
        )

    @property
    def accepted(self) -> bool:
        """Says whether routes may attach."""
        return all(c.status == "True" for c in self.conditions if c.type == "Accepted")


def listeners(view: View, gateway: Gateway) -> tuple[GatewayListener, ...]:
    """Judges every listener of a Gateway."""
    conflicting = conflicts(gateway)
    return tuple(
        _listener(view, gateway, spec, f"spec.listeners[{index}]", conflicting.get(spec.name))
        for index, spec in enumerate(gateway.spec.listeners)
    )


def conflicts(gateway: Gateway) -> dict[str, Condition]:
    """Finds listeners that cannot be told apart (Gateway API: "distinct" listeners). None of them wins."""
    found: dict[str, Condition] = {}
    specs = gateway.spec.listeners
    for index, one in enumerate(specs):
        for other in specs:
            if other.name == one.name or other.port != one.port:
                continue
            field = f"spec.listeners[{index}]"
            if other.protocol.upper() != one.protocol.upper():
                message = f"listener {other.name} uses port {one.port} with protocol {other.protocol}"
                found[one.name] = Condition("Conflicted", "True", "ProtocolConflict", message, f"{field}.protocol")
            elif other.hostname == one.hostname:
                message = f"listener {other.name} has the same port {one.port} and hostname"
                found[one.name] = Condition("Conflicted", "True", "HostnameConflict", message, f"{field}.hostname")
    return found


def port_listeners(gateway: Gateway, judged: tuple[GatewayListener, ...]) -> tuple[PortListener, ...]:
    """Groups the listeners that serve by port; names are contracts (docs/architecture.md)."""
    identity = f"{gateway.metadata.namespace}/{gateway.metadata.name}"
    by_port: dict[int, list[GatewayListener]] = {}
    for listener in judged:
        if listener.serves:
            by_port.setdefault(listener.port, []).append(listener)
    return tuple(
        PortListener(
            gateway=identity,
            port=port,
            https=members[0].protocol == "HTTPS",
            chains=_chains(identity, port, members),
            origin=str(gateway.key),
        )
        for port, members in sorted(by_port.items())
    )


def certificate(view: View, name: str) -> Certificate | None:
    """Returns the certificate that a Secret holds; `name` is its NAMESPACE/NAME."""
    namespace, _, secret_name = name.partition("/")
    secret = view.get(ObjectKey("", "Secret", namespace, secret_name))
    if not isinstance(secret, Secret) or not {"tls.crt", "tls.key"} <= secret.data.keys():
        return None
    return Certificate(name, secret.data["tls.crt"], secret.data["tls.key"], origin=str(secret.key))


def route_config_name(gateway: str, listener: GatewayListener) -> str:
    """Returns the name of the RouteConfiguration that serves a listener."""
    return f"{gateway}/{listener.name}" if listener.protocol == "HTTPS" else f"{gateway}/{listener.port}"


def _chains(identity: str, port: int, members: list[GatewayListener]) -> tuple[FilterChain, ...]:
    if members[0].protocol == "HTTP":
        return (FilterChain("", None, f"{identity}/{port}"),)
    return tuple(
        FilterChain(each.name, each.hostname, route_config_name(identity, each), each.certificates) for each in members
    )


def _listener(view: View, gateway: Gateway, spec: Listener, field: str, conflict: Condition | None) -> GatewayListener:
    protocol = spec.protocol.upper()
    kinds, kind_fault = _kinds(spec, field)
    certificates, tls_fault = _certificates(view, gateway, spec, field)
    accepted = true("Accepted")
    if protocol not in _KINDS_BY_PROTOCOL:
        known = ", ".join(_KINDS_BY_PROTOCOL)
        message = f"protocol {spec.protocol} is not supported; supported are {known}"
        accepted = false("Accepted", "UnsupportedProtocol", message, f"{field}.protocol")
    elif conflict is not None:
        accepted = false("Accepted", conflict.reason, conflict.message, conflict.field)
    elif protocol == "HTTPS" and _checks_clients(gateway, spec.port):
        message = "certificates of clients cannot be checked yet, so the listener does not serve"
        accepted = false("Accepted", "UnsupportedValue", message, "spec.tls.frontend")
    conditions = [accepted, kind_fault or tls_fault or true("ResolvedRefs")]
    if conflict is not None:
        conditions.append(conflict)
    return GatewayListener(spec.name, spec.port, protocol, spec.hostname, kinds, certificates, spec, tuple(conditions))


def _checks_clients(gateway: Gateway, port: int) -> bool:
    """Says whether clients have to show a certificate on a port (Gateway API: GatewaySpec.tls.frontend)."""
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None:
        return False
    of_port = next((each.tls for each in frontend.per_port if each.port == port), frontend.default)
    return of_port.validation is not None


def _kinds(spec: Listener, field: str) -> tuple[tuple[str, ...], Condition | None]:
    supported = _KINDS_BY_PROTOCOL.get(spec.protocol.upper(), ())
    wanted = spec.allowed_routes.kinds
    if not wanted:
        return supported, None
    kinds = tuple(w.kind for w in wanted if w.group == GATEWAY_GROUP and w.kind in supported)
    for index, each in enumerate(wanted):
        if each.group != GATEWAY_GROUP or each.kind not in supported:
            message = f"{each.kind} is not supported by a listener of protocol {spec.protocol}"
            where = f"{field}.allowedRoutes.kinds[{index}]"
            return kinds, false("ResolvedRefs", "InvalidRouteKinds", message, where)
    return kinds, None


def _certificates(view: View, gateway: Gateway, spec: Listener, field: str) -> tuple[tuple[str, ...], Condition | None]:
    if spec.protocol.upper() != "HTTPS":
        return (), None
    if spec.tls is None or not spec.tls.certificate_refs:
        message = "an HTTPS listener needs tls.certificateRefs"
        return (), false("ResolvedRefs", "InvalidCertificateRef", message, f"{field}.tls")
    names: list[str] = []
    for index, ref in enumerate(spec.tls.certificate_refs):
        where = f"{field}.tls.certificateRefs[{index}]"
        target = ObjectKey(ref.group, ref.kind, ref.namespace or gateway.metadata.namespace, ref.name)
        if (target.group, target.kind) != ("", "Secret"):
            message = f"{target.kind} is not a kind of certificate; expected a Secret"
            return (), false("ResolvedRefs", "InvalidCertificateRef", message, f"{where}.kind")
        if not permitted(view, source=gateway.key, target=target):
            message = f"no ReferenceGrant in namespace {target.namespace} lets this Gateway refer to {target}"
            return (), false("ResolvedRefs", "RefNotPermitted", message, where)
        name = f"{target.namespace}/{target.name}"
        if certificate(view, name) is None:
            found = view.get(target) is not None
            message = f"{target} has no tls.crt and tls.key" if found else f"{target} does not exist"
            return (), false("ResolvedRefs", "InvalidCertificateRef", message, where)
        names.append(name)
    return tuple(names), None
