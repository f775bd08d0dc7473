"""BackendTrafficPolicy: limits, and how the Gateway talks to backends."""

from __future__ import annotations

from typing import Annotated, Literal

from controlplane.api.marks import NotSupported
from controlplane.api.meta import Resource
from controlplane.api.policy import LaterBool, LaterList, LaterMapping, MergeablePolicySpec, MergeType
from controlplane.api.ratelimit import RateLimitSpec


class BackendTrafficPolicySpec(MergeablePolicySpec):
    """How much traffic is let through, and how it reaches the backends."""

    merge_type: MergeType | None = None
    """Policies of a Gateway, listener, route and rule merge field by field, and the more specific one's field wins.
    Inside `rateLimit` the rules of both hold with StrategicMerge, and with JSONMerge a list of rules takes the other's
    place. With Replace what Gateways and listeners give by their policies falls away."""
    rate_limit: RateLimitSpec | None = None
    load_balancer: LaterMapping = None
    retry: LaterMapping = None
    proxy_protocol: LaterMapping = None
    tcp_keepalive: LaterMapping = None
    health_check: LaterMapping = None
    circuit_breaker: LaterMapping = None
    timeout: LaterMapping = None
    connection: LaterMapping = None
    dns: LaterMapping = None
    http2: LaterMapping = None
    bandwidth_limit: LaterMapping = None
    fault_injection: LaterMapping = None
    admission_control: LaterMapping = None
    adaptive_concurrency: LaterMapping = None
    use_client_protocol: LaterBool = None
    compression: LaterList = None
    compressor: LaterList = None
    response_override: LaterList = None
    http_upgrade: LaterList = None
    request_buffer: LaterMapping = None
    telemetry: LaterMapping = None
    routing_type: Annotated[Literal["Service", "Endpoint"] | None, NotSupported()] = None


class BackendTrafficPolicy(Resource):
    """Traffic between the Gateway and the backends of a Gateway or a route."""

    kind: Literal["BackendTrafficPolicy"] = "BackendTrafficPolicy"
    spec: BackendTrafficPolicySpec
