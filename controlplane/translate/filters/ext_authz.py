# pyright: standard, reportAttributeAccessIssue=false
"""Keys that the service ext_authz checks; a route names the policy by its content."""

from __future__ import annotations

from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import CheckSettings, ExtAuthz, ExtAuthzPerRoute
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.services import AUTHZ_CLUSTER
from controlplane.translate.wire import duration, packed

NAME: str = "envoy.filters.http.ext_authz"
_TIMEOUT_S = 0.5


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled. It fails closed, with 503."""
    service = GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=AUTHZ_CLUSTER), timeout=duration(_TIMEOUT_S))
    config = ExtAuthz(
        grpc_service=service,
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error={"code": 503},
        validate_mutations=True,
    )
    return HttpFilter(name=NAME, typed_config=packed(config), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns which policy the service is to judge by."""
    if policies.keys is None:
        return None
    settings = CheckSettings(context_extensions={"policy": policies.keys.id}, disable_request_body_buffering=True)
    return packed(ExtAuthzPerRoute(check_settings=settings))
