"""The bootstrap of an Envoy that asks ext_authz, with a policy for each path prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.upstream import Upstream

_CHECK = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_H2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def bootstrap(
    port: int, upstream: Upstream, authz: str | Sequence[str], policies: Sequence[str], *, timeout_s: float = 2.0
) -> dict[str, Any]:
    """An Envoy on `port`: `/POLICY-ID/...` is guarded by that policy, and `authz` are the workers' Unix sockets."""
    sockets = [authz] if isinstance(authz, str) else authz
    listener = {
        "name": "main",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [_typed("hcm", _hcm(policies, timeout_s))]}],
    }
    clusters = [_cluster("upstream", [upstream.endpoint]), _authz_cluster([{"pipe": {"path": s}} for s in sockets])]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _hcm(policies: Sequence[str], timeout_s: float) -> dict[str, Any]:
    check = {
        "@type": _CHECK,
        "transport_api_version": "V3",
        "validate_mutations": True,
        "status_on_error": {"code": "ServiceUnavailable"},
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": f"{timeout_s}s"},
    }
    return {
        "@type": _HCM,
        "stat_prefix": "main",
        "route_config": {"virtual_hosts": [_host(policies)]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": check},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }


def _host(policies: Sequence[str]) -> dict[str, Any]:
    routes = [
        {
            "match": {"prefix": f"/{policy}/"},
            "route": {"cluster": "upstream"},
            "typed_per_filter_config": {
                "envoy.filters.http.ext_authz": {
                    "@type": _ROUTE,
                    "check_settings": {"context_extensions": {"policy": policy}},
                }
            },
        }
        for policy in policies
    ]
    seen = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%"
    told = {"header": {"key": "x-metadata", "value": seen}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"name": "all", "domains": ["*"], "routes": routes, "response_headers_to_add": [told]}


def _authz_cluster(endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    options = {"@type": _H2, "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = _cluster("authz", endpoints)
    return {
        **cluster,
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _cluster(name: str, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    members = [{"endpoint": {"address": endpoint}} for endpoint in endpoints]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
    }


def _typed(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}
