"""Gateways: which of their listeners are valid, and what is wrong with the others (Gateway API: GatewaySpec)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.api.core import Secret
from controlplane.api.gateway import Gateway, Listener
from controlplane.api.listenerset import ListenerSet
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.frontend import Frontend, frontend
from controlplane.compile.grants import permitted
from controlplane.compile.listener_conflicts import Member, conflicts, members_of
from controlplane.compile.protocols import PROTOCOLS, Transport
from controlplane.compile.view import View
from controlplane.conditions import Condition, false, true
from controlplane.ir import Certificate, ClientValidation, FilterChain, PortListener, StreamChain

CONTROLLER_NAME = "dragoman.dev/gateway-controller"


@dataclass(frozen=True, slots=True)
class GatewayListener:
    """A listener with the verdict on it. Only an accepted one serves; a valid one also has what it refers to.

    `id` is its name within the Gateway: that of a ListenerSet's begins with `NAMESPACE/LISTENERSET/`.
    """

    id: str
    name: str
    owner: ObjectKey
    port: int
    protocol: str
    hostname: str | None
    kinds: tuple[str, ...]
    certificates: tuple[str, ...]
    spec: Listener
    conditions: tuple[Condition, ...]
    clients: ClientValidation | None = None

    @property
    def serves(self) -> bool:
        """Says whether the listener is to be programmed."""
        return all(c.status == "True" for c in self.conditions if c.type in ("Accepted", "ResolvedRefs")) or (
            self.accepted and self.protocol != "HTTPS" and bool(self.kinds) and not self._lacks_certificates
        )

    @property
    def accepted(self) -> bool:
        """Says whether routes may attach."""
        return all(c.status == "True" for c in self.conditions if c.type == "Accepted")

    @property
    def transport(self) -> Transport:
        """Over what the port is served."""
        return PROTOCOLS[self.protocol].transport

    @property
    def ends_tls(self) -> bool:
        """Says whether TLS ends here, so that certificates are needed."""
        tls = self.spec.tls
        return self.protocol == "HTTPS" or (self.protocol == "TLS" and tls is not None and tls.mode == "Terminate")

    @property
    def _lacks_certificates(self) -> bool:
        return self.ends_tls and not self.certificates


def listeners(view: View, gateway: Gateway, sets: Sequence[ListenerSet] = ()) -> tuple[GatewayListener, ...]:
    """Judges every listener of a Gateway, its own first, then those of the ListenerSets in the order given."""
    sources = [members_of(each) for each in (gateway, *sets)]
    conflicting = conflicts(sources)
    return tuple(
        _listener(view, gateway, member, conflicting.get(member.id)) for members in sources for member in members
    )


def port_listeners(
    gateway: Gateway, judged: Iterable[GatewayListener], streams: Mapping[str, tuple[StreamChain, ...]]
) -> tuple[PortListener, ...]:
    """Groups the listeners that serve by port; names are contracts (docs/architecture.md).

    `streams` has, by the id of a TLS, TCP or UDP listener, where its connections go. Where no route is, nobody listens.
    """
    identity = f"{gateway.metadata.namespace}/{gateway.metadata.name}"
    by_port: dict[tuple[int, Transport], list[GatewayListener]] = {}
    for listener in judged:
        if listener.serves:
            by_port.setdefault((listener.port, listener.transport), []).append(listener)
    made = (
        PortListener(
            gateway=identity,
            port=port,
            transport=transport,
            tls=PROTOCOLS[members[0].protocol].tls,
            chains=tuple(_chains(identity, port, members, streams)),
            origin=str(gateway.key),
        )
        for (port, transport), members in sorted(by_port.items())
    )
    return tuple(each for each in made if any(isinstance(chain, FilterChain) or chain.origin for chain in each.chains))


def _chains(
    identity: str, port: int, members: Sequence[GatewayListener], streams: Mapping[str, tuple[StreamChain, ...]]
) -> Iterator[FilterChain | StreamChain]:
    if members[0].protocol == "HTTP":
        yield FilterChain("", None, f"{identity}/{port}")
        return
    for each in members:
        if each.protocol == "HTTPS":
            yield FilterChain(
                each.id, each.hostname, route_config_name(identity, each), each.certificates, each.clients
            )
        else:
            yield from streams.get(each.id, ())


def certificate(view: View, name: str) -> Certificate | None:
    """Returns the certificate that a Secret holds; `name` is its NAMESPACE/NAME."""
    namespace, _, secret_name = name.partition("/")
    secret = view.get(ObjectKey("", "Secret", namespace, secret_name))
    if not isinstance(secret, Secret) or not {"tls.crt", "tls.key"} <= secret.data.keys():
        return None
    return Certificate(name, secret.data["tls.crt"], secret.data["tls.key"], origin=str(secret.key))


def route_config_name(gateway: str, listener: GatewayListener) -> str:
    """Returns the name of the RouteConfiguration that serves a listener."""
    return f"{gateway}/{listener.id}" if listener.protocol == "HTTPS" else f"{gateway}/{listener.port}"


def _listener(view: View, gateway: Gateway, member: Member, conflict: Condition | None) -> GatewayListener:
    spec, field = member.spec, member.field
    protocol = spec.protocol.upper()
    kinds, kind_fault = _kinds(spec, field)
    certificates, tls_fault = _certificates(view, member)
    accepted = true("Accepted")
    if protocol not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        message = f"protocol {spec.protocol} is not supported; supported are {known}"
        accepted = false("Accepted", "UnsupportedProtocol", message, f"{field}.protocol")
    elif conflict is not None:
        accepted = false("Accepted", conflict.reason, conflict.message, conflict.field)
    clients = frontend(view, gateway, spec.port) if protocol == "HTTPS" else Frontend()
    accepted = clients.accepted if accepted.status == "True" and clients.accepted is not None else accepted
    conditions = [accepted, kind_fault or tls_fault or clients.resolved or true("ResolvedRefs")]
    if conflict is not None:
        conditions.append(conflict)
    return GatewayListener(
        id=member.id,
        name=spec.name,
        owner=member.owner,
        port=spec.port,
        protocol=protocol,
        hostname=spec.hostname,
        kinds=kinds,
        certificates=certificates,
        spec=spec,
        conditions=tuple(conditions),
        clients=clients.validation,
    )


def _kinds(spec: Listener, field: str) -> tuple[tuple[str, ...], Condition | None]:
    protocol = PROTOCOLS.get(spec.protocol.upper())
    supported = protocol.kinds if protocol is not None else ()
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


def _certificates(view: View, member: Member) -> tuple[tuple[str, ...], Condition | None]:
    spec, field, owner = member.spec, member.field, member.owner
    if spec.protocol.upper() not in ("HTTPS", "TLS") or (spec.tls is not None and spec.tls.mode == "Passthrough"):
        return (), None
    if spec.tls is None or not spec.tls.certificate_refs:
        message = "a listener that ends TLS needs tls.certificateRefs"
        return (), false("ResolvedRefs", "InvalidCertificateRef", message, f"{field}.tls")
    names: list[str] = []
    for index, ref in enumerate(spec.tls.certificate_refs):
        where = f"{field}.tls.certificateRefs[{index}]"
        target = ObjectKey(ref.group, ref.kind, ref.namespace or owner.namespace, ref.name)
        if (target.group, target.kind) != ("", "Secret"):
            message = f"{target.kind} is not a kind of certificate; expected a Secret"
            return (), false("ResolvedRefs", "InvalidCertificateRef", message, f"{where}.kind")
        if not permitted(view, source=owner, target=target):
            message = f"no ReferenceGrant in namespace {target.namespace} lets this {owner.kind} refer to {target}"
            return (), false("ResolvedRefs", "RefNotPermitted", message, where)
        name = f"{target.namespace}/{target.name}"
        if certificate(view, name) is None:
            found = view.get(target) is not None
            message = f"{target} has no tls.crt and tls.key" if found else f"{target} does not exist"
            return (), false("ResolvedRefs", "InvalidCertificateRef", message, where)
        names.append(name)
    return tuple(names), None
