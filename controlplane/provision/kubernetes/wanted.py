"""What a Gateway needs in Kubernetes, as the plan sees it, and what holds for all Gateways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from controlplane.api.gateway import Gateway
from controlplane.api.meta import ObjectKey
from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.provision.address import TcpAddress
from controlplane.provision.kubernetes.ports import HOSTS

Document = dict[str, Any]

ENVOY_IMAGE: Final = "docker.io/envoyproxy/envoy:distroless-v1.40-latest"
CONTROLLER_NAME: Final = "dragoman.dev/gateway-controller"


class ListenerPort(NamedTuple):
    """A port of a Gateway's listeners, and over what it is served."""

    port: int
    transport: Literal["TCP", "UDP"] = "TCP"


class StatusAddress(NamedTuple):
    """An address at which a Gateway is reached (Gateway API: GatewayStatusAddress)."""

    type: Literal["IPAddress", "Hostname"]
    value: str


@dataclass(frozen=True, slots=True)
class WantedGateway:
    """A Gateway that is to have Envoys. `addresses` are those that it asks for: type and value, which may be empty."""

    key: ObjectKey
    uid: str
    ports: tuple[ListenerPort, ...]
    config: ProxyConfigSpec = field(default_factory=ProxyConfigSpec)
    addresses: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    api_version: str = "gateway.networking.k8s.io/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What all Gateways have in common.

    Envoys reach the control plane at `xds`. With `server_name` and `ca_certificate` (PEM) they do so by TLS and show
    the token of their service account; without, in plain text, for trying out. `image` is Dragoman's own, of which the
    drain process is run. `hosts` are what listeners bind.
    """

    xds: TcpAddress
    image: str
    server_name: str = ""
    ca_certificate: str = ""
    envoy_image: str = ENVOY_IMAGE
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    concurrency: int = 2
    controller_name: str = CONTROLLER_NAME
    hosts: tuple[str, ...] = HOSTS
    resources: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType({"requests": {"cpu": "100m", "memory": "256Mi"}})
    )


def wanted_gateway(
    gateway: Gateway, *, uid: str, ports: Iterable[ListenerPort], config: ProxyConfigSpec
) -> WantedGateway:
    """Returns what a Gateway needs. `ports` are those of all listeners whose protocol is known, in force or not.

    So a listener that turns bad does not cost the Service its port, nor the Gateway its address.
    """
    infrastructure = gateway.spec.infrastructure
    return WantedGateway(
        key=gateway.key,
        uid=uid,
        ports=tuple(sorted(set(ports))),
        config=config,
        addresses=tuple((each.type, each.value) for each in gateway.spec.addresses),
        labels=infrastructure.labels if infrastructure is not None else {},
        annotations=infrastructure.annotations if infrastructure is not None else {},
        api_version=gateway.api_version,
    )
