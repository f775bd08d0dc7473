"""The listener on which an Envoy in a pod answers probes and scrapers, so that its admin endpoint stays on loopback.

It is part of the bootstrap, and Envoy opens it when it has its configuration from the control plane, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from controlplane.provision.address import TcpAddress, envoy_address

READY_PATH: Final = "/ready"
"""200 while Envoy serves; 503 when it is about to end."""
LIVE_PATH: Final = "/live"
"""200 while Envoy's main thread runs, also when it is about to end."""
METRICS_PATH: Final = "/stats/prometheus"
STAT_PREFIX: Final = "dragoman_ready"

_ADMIN_CLUSTER: Final = "dragoman-admin"
# What the admin endpoint answers at once and always, with nothing that anybody could use.
_ALIVE: Final = "/hot_restart_version"
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"


def with_ready_listener(document: Mapping[str, Any], *, admin: TcpAddress, hosts: tuple[str, ...], port: int) -> Any:
    """Returns a bootstrap that has the listener too; three paths lead to the admin endpoint, by GET alone."""
    static = document["static_resources"]
    return {
        **document,
        "static_resources": {
            **static,
            "listeners": [*static.get("listeners", []), _listener(hosts, port)],
            "clusters": [*static.get("clusters", []), _cluster(admin)],
        },
    }


def _listener(hosts: tuple[str, ...], port: int) -> dict[str, Any]:
    first, *others = (envoy_address(TcpAddress(host, port)) for host in hosts)
    return {
        "name": "dragoman-ready",
        "stat_prefix": STAT_PREFIX,
        "address": first,
        "additional_addresses": [{"address": each} for each in others],
        # A pod whose connections are used up works at its limit; it is not to be taken for one that is broken.
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [{"name": "envoy.http_connection_manager", "typed_config": _manager()}]}],
    }


def _manager() -> dict[str, Any]:
    router = {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "HTTP1",
        # Whoever reaches the pod reaches this port: nobody may hold its connections for long.
        "common_http_protocol_options": {"idle_timeout": "60s", "max_requests_per_connection": 1000},
        "request_headers_timeout": "5s",
        "request_timeout": "15s",
        "stream_idle_timeout": "15s",
        "max_request_headers_kb": 8,
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "ready",
                    "domains": ["*"],
                    "routes": [_route(READY_PATH), _route(LIVE_PATH, to=_ALIVE), _route(METRICS_PATH)],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }


def _route(path: str, *, to: str | None = None) -> dict[str, Any]:
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    action: dict[str, Any] = {"cluster": _ADMIN_CLUSTER, "timeout": "10s"}
    if to is not None:
        action["prefix_rewrite"] = to
    return {"match": {"path": path, "headers": [get]}, "route": action}


def _cluster(admin: TcpAddress) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": envoy_address(admin)}}
    return {
        "name": _ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": 16, "max_pending_requests": 16, "max_requests": 16}]},
        "load_assignment": {"cluster_name": _ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
