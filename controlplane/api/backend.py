"""Backend: endpoints that no Service stands for, by name, address or socket."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.marks import NotSupported
from controlplane.api.meta import LocalObjectReference, Model, Resource, SecretObjectReference
from controlplane.api.policy import LaterBool, LaterList, LaterText
from controlplane.api.scalars import Bool, Port, PreciseHostname, refuse


def _check_address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise refuse(f"expected an IP address; got {text!r}") from None
    return text


class FQDNEndpoint(Model):
    """A DNS name and port."""

    hostname: PreciseHostname
    """The DNS name, which the control plane resolves."""
    port: Port
    """The port."""


class IPEndpoint(Model):
    """An IP address and port."""

    address: Annotated[str, Field(min_length=2, max_length=45), AfterValidator(_check_address)]
    """The address, IPv4 or IPv6."""
    port: Port
    """The port."""


class UnixSocket(Model):
    """A Unix domain socket."""

    path: Annotated[str, Field(min_length=1, max_length=107)]
    """Path of the socket, as Envoy sees it."""


class BackendEndpoint(Model):
    """One endpoint, of exactly one sort."""

    hostname: PreciseHostname | None = None
    """Name of the endpoint, for host rewrites."""
    fqdn: FQDNEndpoint | None = None
    ip: IPEndpoint | None = None
    unix: UnixSocket | None = None
    zone: str | None = None

    @model_validator(mode="after")
    def _one_sort(self) -> BackendEndpoint:
        if sum(each is not None for each in (self.fqdn, self.ip, self.unix)) != 1:
            raise refuse("set exactly one of fqdn, ip and unix")
        return self


class BackendTLSSettings(Model):
    """TLS to a backend."""

    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = ()
    """ConfigMaps or Secrets with the trusted authorities in the key `ca.crt`."""
    well_known_ca_certificates: Literal["System"] | None = None
    """Trust the authorities of the system instead."""
    insecure_skip_verify: Bool = False
    """Do not check the certificate."""
    sni: PreciseHostname | None = None
    """Server name to ask for; the host of the request when absent."""
    auto_sni_from_endpoint_hostname: Annotated[
        Bool | None, Field(alias="autoSNIFromEndpointHostname"), NotSupported()
    ] = None
    client_certificate_ref: Annotated[SecretObjectReference | None, NotSupported()] = None
    min_version: LaterText = None
    max_version: LaterText = None
    ciphers: LaterList = None
    ecdh_curves: LaterList = None
    signature_algorithms: LaterList = None
    alpn_protocols: LaterList = None

    @model_validator(mode="after")
    def _one_trust(self) -> BackendTLSSettings:
        if self.ca_certificate_refs and self.well_known_ca_certificates:
            raise refuse("set caCertificateRefs or wellKnownCACertificates, not both", "wellKnownCACertificates")
        if self.insecure_skip_verify and (self.ca_certificate_refs or self.well_known_ca_certificates):
            raise refuse("insecureSkipVerify leaves nothing to trust; set one or the other", "insecureSkipVerify")
        return self


def _check_endpoints(endpoints: tuple[BackendEndpoint, ...]) -> tuple[BackendEndpoint, ...]:
    names = [each.fqdn is not None for each in endpoints]
    if any(names) and not all(names):
        raise refuse("fqdn endpoints cannot be mixed with others", f"[{names.index(not names[0])}]")
    return endpoints


AppProtocol = Literal[
    "gateway.envoyproxy.io/h2c",
    "gateway.envoyproxy.io/ws",
    "gateway.envoyproxy.io/wss",
    "kubernetes.io/h2c",
    "kubernetes.io/ws",
    "kubernetes.io/wss",
]


class BackendSpec(Model):
    """Where the backend is and what it speaks."""

    type: Literal["Endpoints", "DynamicResolver"] = "Endpoints"
    """Endpoints that are given here, or (not supported yet) resolved from the Host of each request."""
    endpoints: Annotated[tuple[BackendEndpoint, ...], Field(max_length=64), AfterValidator(_check_endpoints)] = ()
    app_protocols: Annotated[tuple[AppProtocol, ...], Field(max_length=8)] = ()
    """HTTP/1.1 when empty."""
    fallback: LaterBool = None
    tls: BackendTLSSettings | None = None

    @model_validator(mode="after")
    def _type_has_endpoints(self) -> BackendSpec:
        if (self.type == "Endpoints") != bool(self.endpoints):
            words = "needs" if self.type == "Endpoints" else "must not have"
            raise refuse(f"type {self.type} {words} endpoints", "endpoints")
        return self


class Backend(Resource):
    """Endpoints that routes can refer to, with group and kind, as they do to a Service."""

    kind: Literal["Backend"] = "Backend"
    spec: BackendSpec
