"""ClientTrafficPolicy: connections between clients and the Gateway."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from controlplane.api.marks import NotSupported
from controlplane.api.meta import Resource
from controlplane.api.policy import LaterBool, LaterMapping, PolicySpec


class ClientTrafficPolicySpec(PolicySpec):
    """How listeners treat connections and requests of clients."""

    target_kinds: ClassVar[tuple[str, ...]] = ("Gateway", "ListenerSet")

    tcp_keepalive: LaterMapping = None
    enable_proxy_protocol: LaterBool = None
    proxy_protocol: LaterMapping = None
    client_ip_detection: LaterMapping = None
    tls: LaterMapping = None
    path: LaterMapping = None
    headers: LaterMapping = None
    timeout: LaterMapping = None
    connection: LaterMapping = None
    http1: LaterMapping = None
    http2: LaterMapping = None
    http3: LaterMapping = None
    grpc: LaterMapping = None
    health_check: LaterMapping = None
    scheme: Annotated[Literal["Preserve", "MatchBackend"] | None, NotSupported()] = None


class ClientTrafficPolicy(Resource):
    """Connections between clients and the listeners of a Gateway."""

    supported: ClassVar[bool] = False

    kind: Literal["ClientTrafficPolicy"] = "ClientTrafficPolicy"
    spec: ClientTrafficPolicySpec
