# pyright: standard, reportAttributeAccessIssue=false
"""What gRPC's own xDS client (`xds:///HOSTNAME`) understands: an API listener, list routes, the router alone.

It refuses matcher trees and filters that it does not know; targets that need authentication or limits are left out, for
a client that goes to the backend directly would not be held to them.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.api_listener_pb2 import ApiListener
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost, WeightedCluster
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)

from controlplane import ir
from controlplane.translate import clusters
from controlplane.translate.matches import route_match
from controlplane.translate.wire import encode, packed


def understands(route: ir.Route) -> bool:
    """Says whether the client can follow a route: it forwards, and nothing else is asked of the request."""
    return (
        isinstance(route.rule.action, ir.Forward)
        and any(backend.cluster is not None for backend in route.rule.action.backends)
        and not route.match.query
    )


def open_to_all(route: ir.Route) -> bool:
    """Says whether nothing guards a route."""
    return route.policies == ir.Policies(cors=route.policies.cors, origins=route.policies.origins)


def listener(target: str) -> bytes:
    """Encodes the listener of a target; its routes come under the same name."""
    manager = HttpConnectionManager(
        rds=Rds(config_source=clusters.ads(), route_config_name=target),
        http_filters=[HttpFilter(name="router", typed_config=packed(Router()))],
    )
    return encode(Listener(name=target, api_listener=ApiListener(api_listener=packed(manager))))


def route_configuration(target: str, routes: Iterable[ir.Route]) -> bytes:
    """Encodes the routes of a target, in the order of precedence."""
    host = VirtualHost(name=target, domains=["*"], routes=[_route(each) for each in routes])
    return encode(RouteConfiguration(name=target, virtual_hosts=[host]))


def cluster(source: ir.Cluster) -> bytes:
    """Encodes a cluster; round robin, for the client knows few other ways."""
    return encode(
        Cluster(
            name=str(source.id),
            type=Cluster.EDS,
            eds_cluster_config=Cluster.EdsClusterConfig(eds_config=clusters.ads()),
            lb_policy=Cluster.ROUND_ROBIN,
        )
    )


def endpoints(source: ir.Endpoints) -> bytes:
    """Encodes endpoints; the client passes over localities without a weight."""
    message = ClusterLoadAssignment.FromString(clusters.endpoints(source))
    for locality in message.endpoints:
        locality.locality.region = "dragoman"
        locality.load_balancing_weight.value = 1
    return encode(message)


def _route(source: ir.Route) -> Route:
    action = source.rule.action
    assert isinstance(action, ir.Forward)
    route = Route(name=source.name, match=_match(source.match))
    known = [backend for backend in action.backends if backend.cluster is not None]
    if len(known) == 1:
        route.route.cluster = str(known[0].cluster)
    else:
        weights = [
            WeightedCluster.ClusterWeight(name=str(each.cluster), weight={"value": each.weight}) for each in known
        ]
        route.route.weighted_clusters.clusters.extend(weights)
    if action.request_timeout_s:
        route.route.max_stream_duration.max_stream_duration.FromMilliseconds(round(action.request_timeout_s * 1000))
    return route


def _match(match: ir.Match) -> object:
    out = route_match(match)
    if out.path_separated_prefix:
        # The paths of gRPC are /SERVICE/METHOD, so a prefix of whole segments is a service.
        out.prefix = f"{match.path.value}/"
    return out
