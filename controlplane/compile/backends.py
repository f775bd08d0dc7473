"""Backend references: which cluster they mean, and what that cluster and its endpoints are."""

from __future__ import annotations

from typing import NamedTuple

from controlplane.api.backend import Backend
from controlplane.api.core import Service, ServicePort
from controlplane.api.meta import ENVOY_GATEWAY_GROUP, POLICY_GROUP, BackendObjectReference, ObjectKey
from controlplane.compile import backendtls, trust
from controlplane.compile.grants import permitted
from controlplane.compile.special_addresses import is_special
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import (
    Carried,
    Cluster,
    ClusterId,
    Endpoint,
    Endpoints,
    Protocol,
    SubjectName,
    UpstreamPolicy,
    UpstreamTls,
)

GROUPS = (POLICY_GROUP, ENVOY_GATEWAY_GROUP)
_HTTP2_PROTOCOLS = ("kubernetes.io/h2c", "grpc", "gateway.envoyproxy.io/h2c")
_NO_HTTP2_PROTOCOLS = ("kubernetes.io/ws", "kubernetes.io/wss")


class Resolved(NamedTuple):
    """A reference's cluster, or the ResolvedRefs condition that says why there is none."""

    cluster: ClusterId | None
    fault: Condition | None = None


def resolve(
    view: View,
    ref: BackendObjectReference,
    *,
    source: ObjectKey,
    field: str,
    http2: bool = False,
    tls: bool = False,
    carries: Carried = "requests",
) -> Resolved:
    """Resolves a reference made by `source` in `field` (Gateway API: BackendObjectReference).

    With `http2` the backend has to be spoken to in HTTP/2, whether it says so or says nothing; with `tls` a Service has
    to be spoken to in TLS, whether a BackendTLSPolicy says so or none does.
    """
    target = ObjectKey(ref.group, ref.kind, ref.namespace or source.namespace, ref.name)
    if not _is_service(target) and not _is_backend(target):
        expected = "expected a Service or a Backend"
        return _fault("InvalidKind", f"{target.kind} is not a kind of backend; {expected}", f"{field}.kind")
    if not permitted(view, source=source, target=target):
        who = f"{source.kind}s of {source.namespace}"
        message = f"no ReferenceGrant in namespace {target.namespace} lets {who} refer to {target}"
        return _fault("RefNotPermitted", message, field)
    backend = view.get(target)
    if backend is None:
        return _fault("BackendNotFound", f"{target} does not exist", f"{field}.name")
    if isinstance(backend, Service):
        return _resolve_service(backend, target, ref.port, field, http2=http2, tls=tls, carries=carries)
    if (unfit := _unfit(view, backend, carries)) is not None:
        return _fault("UnsupportedValue", f"{target} {unfit}", f"{field}.name")
    for untrusted in trust.faults(view, trust.of_backend(backend)):
        return _fault(untrusted.reason, f"{target} cannot be trusted: {untrusted.message}", f"{field}.name")
    policy = UpstreamPolicy(http2 and not _is_http2(*backend.spec.app_protocols), carries)
    return Resolved(ClusterId(target.namespace, "Backend", target.name, ref.port or 0, policy))


def cluster(view: View, id_: ClusterId) -> Cluster | None:
    """Returns what the cluster must do; None where its backend has gone."""
    backend = _backend_of(view, id_)
    if isinstance(backend, Service):
        port = _port_of(backend, id_.port, id_.policy.carries)
        if port is None:
            return None
        protocol = Protocol.HTTP2 if id_.policy.http2 or _is_http2(port.app_protocol) else Protocol.HTTP1
        policy = backendtls.policy_of(view, backend, id_.port) if _may_encrypt(id_) else None
        if policy is None:
            unchecked = UpstreamTls(verify=False) if id_.policy.unchecked_tls else None
            return Cluster(id_, protocol, unchecked, origin=str(backend.key))
        tls = backendtls.upstream_tls(view, policy)
        return Cluster(id_, protocol, tls, origin=str(backend.key), blocked=tls is None)
    if isinstance(backend, Backend):
        h2 = id_.policy.http2 or _is_http2(*backend.spec.app_protocols)
        tls = _tls_of(backend) if _may_encrypt(id_) else None
        return Cluster(id_, Protocol.HTTP2 if h2 else Protocol.HTTP1, tls, origin=str(backend.key))
    return None


def endpoints(view: View, id_: ClusterId) -> Endpoints:
    """Returns the addresses that are ready to serve; none where the backend has gone or has none."""
    backend = _backend_of(view, id_)
    if isinstance(backend, Service):
        return Endpoints(id_, _service_endpoints(view, backend, id_), origin=str(backend.key))
    if isinstance(backend, Backend):
        return Endpoints(id_, _backend_endpoints(view, backend, id_.port), origin=str(backend.key))
    return Endpoints(id_, ())


def authorities(view: View, id_: ClusterId) -> trust.Authorities | None:
    """Returns whom a cluster trusts, where that is not the system's choice."""
    backend = _backend_of(view, id_) if _may_encrypt(id_) else None
    if isinstance(backend, Backend):
        return (
            None
            if trust.faults(view, trust.of_backend(backend))
            else trust.authorities(view, trust.of_backend(backend))
        )
    policy = backendtls.policy_of(view, backend, id_.port) if backend is not None else None
    return trust.authorities(view, trust.of_policy(policy)) if policy is not None else None


def unresolved_hosts(view: View, id_: ClusterId) -> tuple[str, ...]:
    """Returns the host names of a Backend whose addresses are not known yet."""
    return tuple(host for host in host_names(view, id_) if view.addresses(host) is None)


def host_names(view: View, id_: ClusterId) -> tuple[str, ...]:
    """Returns the host names that must be resolved for a cluster."""
    backend = _backend_of(view, id_)
    if not isinstance(backend, Backend):
        return ()
    return tuple(dict.fromkeys(e.fqdn.hostname for e in backend.spec.endpoints if e.fqdn is not None))


def _may_encrypt(id_: ClusterId) -> bool:
    """Says whether TLS towards a backend is the gateway's to speak, if there is to be any."""
    return id_.policy.carries in ("requests", "streams")


def _unfit(view: View, backend: Backend, carries: Carried) -> str | None:
    """Says what of a Backend cannot be had here, or not for connections or datagrams; None where it can serve them."""
    tls = backend.spec.tls
    if view.remote_backends_only:
        if any(each.unix is not None for each in backend.spec.endpoints):
            return "has a Unix socket, which would be one of Envoy's own pod"
        special = next((e.ip.address for e in backend.spec.endpoints if e.ip and is_special(e.ip.address)), None)
        if special is not None:
            return f"has the address {special}, which would be one of Envoy's own pod or node"
    if carries == "datagrams":
        if tls is not None:
            return "asks for TLS, which datagrams cannot have"
        if any(each.unix is not None for each in backend.spec.endpoints):
            return "has a Unix socket, which takes no datagrams"
    # There is no request whose host could say what name the certificate must have.
    if carries == "streams" and tls is not None and tls.sni is None and not tls.insecure_skip_verify:
        return "does not say by tls.sni what name its certificate must have"
    return None


def _port_of(service: Service, port: int | None, carries: Carried) -> ServicePort | None:
    """Returns a port of a Service; TCP and UDP may have the same number."""
    transport = "UDP" if carries == "datagrams" else "TCP"
    return next((p for p in service.spec.ports if p.port == port and p.protocol == transport), None)


def _is_http2(*protocols: str | None) -> bool:
    return any(each in _HTTP2_PROTOCOLS for each in protocols)


def _resolve_service(
    service: Service, target: ObjectKey, port: int | None, field: str, *, http2: bool, tls: bool, carries: Carried
) -> Resolved:
    if service.spec.type == "ExternalName":
        message = f"{target} is of type ExternalName, which is not supported; use a Backend with an fqdn endpoint"
        return _fault("UnsupportedValue", message, f"{field}.name")
    found = _port_of(service, port, carries)
    if found is None:
        transport = "UDP" if carries == "datagrams" else "TCP"
        known = ", ".join(str(p.port) if p.protocol == "TCP" else f"{p.port}/{p.protocol}" for p in service.spec.ports)
        wanted = port if transport == "TCP" else f"{port}/{transport}"
        return _fault("BackendNotFound", f"{target} has no port {wanted}; it has: {known or 'none'}", f"{field}.port")
    if http2 and found.app_protocol in _NO_HTTP2_PROTOCOLS:
        message = f"port {port} of {target} speaks {found.app_protocol}, which cannot carry gRPC"
        return _fault("UnsupportedProtocol", message, f"{field}.port")
    policy = UpstreamPolicy(http2 and not _is_http2(found.app_protocol), carries, tls)
    return Resolved(ClusterId(target.namespace, "Service", target.name, found.port, policy))


def _service_endpoints(view: View, service: Service, id_: ClusterId) -> tuple[Endpoint, ...]:
    port = _port_of(service, id_.port, id_.policy.carries)
    name = port.name if port is not None else ""
    found: dict[Endpoint, None] = {}
    for piece in view.slices(service.metadata.namespace, service.metadata.name):
        for piece_port in piece.ports:
            if piece_port.name != name or piece_port.port is None:
                continue
            for endpoint in piece.endpoints:
                if endpoint.conditions.ready is not False:
                    found.update((Endpoint(address, piece_port.port), None) for address in endpoint.addresses)
    return tuple(sorted(found, key=lambda e: (e.address, e.port)))


def _backend_endpoints(view: View, backend: Backend, port: int) -> tuple[Endpoint, ...]:
    found: dict[Endpoint, None] = {}
    for endpoint in backend.spec.endpoints:
        if endpoint.ip is not None:
            found[Endpoint(endpoint.ip.address, endpoint.ip.port)] = None
        elif endpoint.unix is not None:
            found[Endpoint(endpoint.unix.path, 0)] = None
        elif endpoint.fqdn is not None:
            for address in view.addresses(endpoint.fqdn.hostname) or ():
                # Whoever has a name decides on its addresses.
                if not (view.remote_backends_only and is_special(address)):
                    found[Endpoint(address, endpoint.fqdn.port)] = None
    return tuple(sorted(found, key=lambda e: (e.address, e.port)))


def _tls_of(backend: Backend) -> UpstreamTls | None:
    tls = backend.spec.tls
    if tls is None:
        return None
    trusted = trust.of_backend(backend)
    names = () if tls.sni is None else (SubjectName("Hostname", tls.sni),)
    ca_secret = trusted.secret if trusted.refs else None
    return UpstreamTls(sni=tls.sni, ca_secret=ca_secret, verify=not tls.insecure_skip_verify, names=names)


def _backend_of(view: View, id_: ClusterId) -> Service | Backend | None:
    groups = ("",) if id_.kind == "Service" else GROUPS
    found = (view.get(ObjectKey(group, id_.kind, id_.namespace, id_.name)) for group in groups)
    return next((backend for backend in found if backend is not None), None)


def _is_service(target: ObjectKey) -> bool:
    return (target.group, target.kind) == ("", "Service")


def _is_backend(target: ObjectKey) -> bool:
    return target.kind == "Backend" and target.group in GROUPS


def _fault(reason: str, message: str, field: str) -> Resolved:
    return Resolved(None, false("ResolvedRefs", reason, message, field))
