# pyright: standard, reportAttributeAccessIssue=false
"""Limits that all Envoys count together, by Envoy's ratelimit filter; a route carries its descriptors.

The filter is there four times: what happens while the service cannot be reached, and how long an answer may take, can
only be said for a whole filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.config.ratelimit.v3.rls_pb2 import RateLimitServiceConfig
from envoy.extensions.filters.http.ratelimit.v3.rate_limit_pb2 import RateLimit
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.ir_plans import MAX_DELAY_S
from controlplane.translate import newer, plans
from controlplane.translate.descriptors import rate_limits
from controlplane.translate.requests import until_done
from controlplane.translate.services import RATE_LIMIT_CLUSTER
from controlplane.translate.wire import duration, packed

_TIMEOUT_S = 0.1
_PerRoute: Any = newer.message("envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute")


@dataclass(frozen=True, slots=True)
class RateLimitFilter:
    """One of the four: requests pass while the service cannot be reached, or they are answered with 503.

    With `holds`, the service may hold an answer back until it is the request's turn.
    """

    NAME: str
    fail_open: bool
    holds: bool = False

    def listener_filter(self) -> HttpFilter:
        """Returns the filter as it stands on every listener, disabled."""
        service = GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=RATE_LIMIT_CLUSTER))
        config = RateLimit(
            domain="none",
            timeout=duration(_TIMEOUT_S + (MAX_DELAY_S if self.holds else 0)),
            failure_mode_deny=not self.fail_open,
            status_on_error={"code": 503},
            rate_limit_service=RateLimitServiceConfig(grpc_service=service, transport_api_version=ApiVersion.V3),
            disable_x_envoy_ratelimited_header=True,
            # To a client of gRPC UNAVAILABLE says: try again at once.
            rate_limited_as_resource_exhausted=True,
        )
        return HttpFilter(name=self.NAME, typed_config=packed(config), disabled=True)

    def route_config(self, rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
        """Returns the domain and the descriptors of a route."""
        limit = policies.global_limit
        if limit is None or limit.fail_open is not self.fail_open or limit.holds is not self.holds:
            return None
        limits = [
            each
            for index, asked in enumerate(limit.rules)
            if not asked.counting.quota
            for made in rate_limits(index, asked, tokens=policies.tokens, scope=policies.limit_scope)
            for each in until_done(made, running=asked.counting.until_done)
        ]
        if limit.plans is not None:
            limits += plans.rate_limits(limit.plans, policies)
        if not limits:
            return None
        return packed(_PerRoute(domain=limit.domain, rate_limits=limits))


OPEN = RateLimitFilter("dragoman/ratelimit", fail_open=True)
CLOSED = RateLimitFilter("dragoman/ratelimit-closed", fail_open=False)
HELD_OPEN = RateLimitFilter("dragoman/ratelimit-held", fail_open=True, holds=True)
HELD_CLOSED = RateLimitFilter("dragoman/ratelimit-held-closed", fail_open=False, holds=True)
ALL = (OPEN, CLOSED, HELD_OPEN, HELD_CLOSED)
