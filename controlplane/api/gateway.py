"""Gateway: listeners, the addresses that they bind, and TLS towards clients and backends."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.marks import NotSupported
from controlplane.api.meta import (
    GATEWAY_GROUP,
    LabelSelector,
    LocalObjectReference,
    Model,
    ObjectReference,
    Resource,
    SecretObjectReference,
)
from controlplane.api.scalars import (
    ADDRESS_TYPE_PATTERN,
    HOSTNAME_PATTERN,
    PROTOCOL_PATTERN,
    Group,
    Hostname,
    Kind,
    ObjectName,
    Port,
    QualifiedName,
    SectionName,
    matches_pattern,
    refuse,
    require_unique,
)

FromNamespaces: TypeAlias = Literal["All", "Selector", "Same"]


class RouteGroupKind(Model):
    """A kind of route."""

    group: Group = GATEWAY_GROUP
    """API group of the route."""
    kind: Kind
    """Kind of the route."""


class RouteNamespaces(Model):
    """Namespaces that routes may come from."""

    from_: FromNamespaces = Field(default="Same", alias="from")
    """All namespaces, those that the selector selects, or that of the Gateway."""
    selector: LabelSelector | None = None
    """Labels of the namespaces; used with `from: Selector`."""


class AllowedRoutes(Model):
    """Which routes may attach to a listener."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] = ()
    """Kinds of route; those that fit the protocol when empty."""


class ListenerTLSConfig(Model):
    """How a listener ends or passes on TLS."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    """Whether TLS ends here or goes through to the backend."""
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Field(max_length=64)] = ()
    """Secrets of type kubernetes.io/tls that hold certificate and private key."""
    options: Annotated[dict[QualifiedName, Annotated[str, Field(max_length=4096)]], Field(max_length=16)] = Field(
        default={}
    )
    """Settings of the implementation, by domain-prefixed name."""

    @model_validator(mode="after")
    def _terminate_has_certificate(self) -> ListenerTLSConfig:
        if self.mode == "Terminate" and not self.certificate_refs and not self.options:
            raise refuse("mode Terminate needs certificateRefs (or options)", "certificateRefs")
        return self


class Listener(Model):
    """One port, protocol and hostname that a Gateway accepts connections for."""

    name: SectionName
    """Name of the listener, which routes and policies can refer to as `sectionName`."""
    hostname: Hostname | None = None
    """The host to match, exact or `*.example.com`; every host when absent."""
    port: Port
    """Port that clients connect to."""
    protocol: Annotated[str, Field(min_length=1, max_length=255, pattern=PROTOCOL_PATTERN)]
    """HTTP, HTTPS, TLS, TCP or UDP, in any case."""
    tls: ListenerTLSConfig | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()

    @model_validator(mode="after")
    def _protocol_fits(self) -> Listener:
        check_listener_protocol(self.protocol, self.hostname, self.tls)
        return self


def check_listener_protocol(protocol: str, hostname: str | None, tls: ListenerTLSConfig | None) -> None:
    """Which fields go with which protocol (Gateway API: GatewaySpec.listeners)."""
    name = protocol.upper()
    if tls is not None and name in ("HTTP", "TCP", "UDP"):
        raise refuse(f"tls must not be set for protocol {protocol}", "tls")
    if tls is not None and name == "HTTPS" and tls.mode != "Terminate":
        raise refuse("mode must be Terminate for protocol HTTPS", "tls.mode")
    if tls is None and name == "TLS":
        raise refuse("protocol TLS needs tls.mode", "tls")
    if hostname is not None and name in ("TCP", "UDP"):
        raise refuse(f"hostname must not be set for protocol {protocol}", "hostname")


def check_listeners(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    """Listeners of one object differ in name, and in port, protocol or hostname."""
    require_unique(listeners, lambda each: each.name, "listener name")
    seen: dict[tuple[int, str, str | None], str] = {}
    for index, each in enumerate(listeners):
        first = seen.setdefault((each.port, each.protocol.upper(), each.hostname), each.name)
        if first != each.name:
            raise refuse(f"same port, protocol and hostname as listener {first!r}", f"[{index}]")
    return listeners


class GatewaySpecAddress(Model):
    """An address that the Gateway should have."""

    type: Annotated[str, Field(min_length=1, max_length=253, pattern=ADDRESS_TYPE_PATTERN)] = "IPAddress"
    """What the value is."""
    value: Annotated[str, Field(max_length=253)] = ""
    """The address; any of this type when empty."""

    @model_validator(mode="after")
    def _hostname_is_one(self) -> GatewaySpecAddress:
        if self.type == "Hostname" and self.value and not matches_pattern(HOSTNAME_PATTERN, self.value):
            raise refuse("expected a host name in lower case", "value")
        return self


def _check_addresses(addresses: tuple[GatewaySpecAddress, ...]) -> tuple[GatewaySpecAddress, ...]:
    # An address without a value is a wish for any, and may be repeated.
    require_unique(enumerate(addresses), lambda each: (each[1].type, each[1].value or each[0]), "address")
    return addresses


class GatewayInfrastructure(Model):
    """What is made for a Gateway, such as its Deployment and Service."""

    labels: Annotated[dict[str, str], Field(max_length=8)] = Field(default_factory=dict)
    """Labels for what is made."""
    annotations: Annotated[dict[str, str], Field(max_length=16)] = Field(default_factory=dict)
    """Annotations for what is made."""
    parameters_ref: LocalObjectReference | None = None
    """A ProxyConfig (or EnvoyProxy) for the Envoys of this Gateway; it stands in place of that of the class."""


class ListenerNamespaces(Model):
    """Namespaces that ListenerSets may come from."""

    from_: Literal["All", "Selector", "Same", "None"] = Field(default="None", alias="from")
    """All namespaces, those that the selector selects, that of the Gateway, or none."""
    selector: LabelSelector | None = None


class AllowedListeners(Model):
    """Which ListenerSets may attach to a Gateway; none unless allowed."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendTLSValidation(Model):
    """How certificates of clients are checked."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=8)]
    """ConfigMaps (or Secrets) with the trusted authorities in the key `ca.crt`."""
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"
    """Whether clients without a valid certificate may connect all the same."""


class TLSConfig(Model):
    """TLS towards clients."""

    validation: FrontendTLSValidation | None = None


class TLSPortConfig(Model):
    """TLS towards clients on one port."""

    port: Port
    """Port of the listeners."""
    tls: TLSConfig


def _check_ports(ports: tuple[TLSPortConfig, ...]) -> tuple[TLSPortConfig, ...]:
    require_unique(ports, lambda each: each.port, "port")
    return ports


class FrontendTLSConfig(Model):
    """TLS towards clients, for all HTTPS listeners or by port."""

    default: TLSConfig
    per_port: Annotated[tuple[TLSPortConfig, ...], Field(max_length=64), AfterValidator(_check_ports)] = ()


class GatewayBackendTLS(Model):
    """The Gateway as a TLS client of backends."""

    client_certificate_ref: SecretObjectReference | None = None
    """The certificate that the Gateway shows to backends."""


class GatewayTLSConfig(Model):
    """TLS towards clients (`frontend`) and backends (`backend`) for the whole Gateway."""

    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewaySpec(Model):
    """What a Gateway listens on."""

    gateway_class_name: ObjectName
    """Name of the GatewayClass."""
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64), AfterValidator(check_listeners)]
    addresses: Annotated[tuple[GatewaySpecAddress, ...], Field(max_length=16), AfterValidator(_check_addresses)] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLSConfig | None = None
    default_scope: Annotated[Literal["All", "None"] | None, NotSupported()] = None
    """Routes that set `useDefaultGateways` attach by themselves."""


class Gateway(Resource):
    """Listeners that accept connections, and whom they accept routes from."""

    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
