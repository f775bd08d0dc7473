# pyright: standard, reportAttributeAccessIssue=false
"""Handmade resources: real Envoy messages where Envoy reads them, plain bytes where only we do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router  # noqa: F401 - known to Any by its import
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as _manager,  # noqa: F401 - known to Any by its import
)
from google.protobuf import json_format

from controlplane.xds.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, Snapshot

_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
_ADS = {"ads": {}, "resource_api_version": "V3"}


def snapshot(*resources: Resource) -> Snapshot:
    """A snapshot of these."""
    by_type: dict[str, dict[str, Resource]] = {}
    for resource in resources:
        by_type.setdefault(resource.type_url, {})[resource.name] = resource
    return Snapshot(by_type)


def plain(type_url: str, name: str, text: str = "", origins: tuple[str, ...] = ()) -> Resource:
    """A resource whose body means nothing; `text` makes versions differ."""
    return Resource.of(type_url, name, f"{name}={text}".encode(), origins)


def listener(name: str, port: int, route: str) -> Resource:
    """An HTTP listener on loopback that takes its routes from RDS."""
    manager = {
        "@type": f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "rds": {"route_config_name": route, "config_source": _ADS},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"},
            }
        ],
    }
    message = {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    return _resource(LISTENER, name, message, listener_pb2.Listener())


def route(name: str, prefixes: Mapping[str, str]) -> Resource:
    """A route configuration for every host: prefix → cluster, the longest first."""
    routes = [
        {"match": {"prefix": prefix}, "route": {"cluster": cluster}}
        for prefix, cluster in sorted(prefixes.items(), key=lambda pair: -len(pair[0]))
    ]
    message = {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    return _resource(ROUTE, name, message, route_pb2.RouteConfiguration())


def cluster(name: str, *, connect_timeout: str = "1s", origins: tuple[str, ...] = ()) -> Resource:
    """An EDS cluster."""
    message = {
        "name": name,
        "type": "EDS",
        "connect_timeout": connect_timeout,
        "eds_cluster_config": {"eds_config": {**_ADS, "initial_fetch_timeout": "60s"}},
    }
    return _resource(CLUSTER, name, message, cluster_pb2.Cluster(), origins)


def endpoints(name: str, ports: Iterable[int]) -> Resource:
    """Endpoints on loopback."""
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    message = {
        "cluster_name": name,
        "endpoints": [{"locality": {"zone": "z"}, "load_balancing_weight": 1, "lb_endpoints": hosts}],
    }
    return _resource(ENDPOINT, name, message, endpoint_pb2.ClusterLoadAssignment())


def _resource(type_url: str, name: str, fields: Any, message: Any, origins: tuple[str, ...] = ()) -> Resource:
    json_format.ParseDict(fields, message)
    return Resource.of(type_url, name, message.SerializeToString(deterministic=True), origins)


def bootstrap(address: str, cluster_name: str, *, delta: bool = True, node_id: str = "envoy-1") -> dict[str, Any]:
    """A bootstrap that takes everything from ADS at `unix:/path` or `127.0.0.1:PORT`."""
    if address.startswith("unix:"):
        where: dict[str, Any] = {"pipe": {"path": address.removeprefix("unix:")}}
    else:
        host, _, port = address.rpartition(":")
        where = {"socket_address": {"address": host, "port_value": int(port)}}
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "node": {"id": node_id, "cluster": cluster_name},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": _ADS,
            "lds_config": _ADS,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
                    },
                }
            ]
        },
    }
