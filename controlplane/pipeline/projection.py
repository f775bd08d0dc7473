"""The projection of a Gateway for gRPC's own xDS client, computed for those Gateways alone that have such clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.graph import Derived, Graph, Table
from controlplane.translate import grpc_client
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource, Snapshot

Targets = Callable[[ObjectKey], Iterable[tuple[str, Sequence[ir.Route]]]]
"""Returns the exact domains of a Gateway, each with its routes in the order of precedence."""


class GrpcProjection:
    """Set `wanted` for the Gateways that have gRPC clients; `snapshots` says what they are sent."""

    def __init__(
        self,
        graph: Graph,
        *,
        targets: Targets,
        cluster: Callable[[ir.ClusterId], ir.Cluster | None],
        endpoints: Callable[[ir.ClusterId], ir.Endpoints],
    ) -> None:
        self.wanted: Table[ObjectKey, None] = graph.table("gRPC clients")
        self._targets = targets
        self._cluster = cluster
        self._endpoints = endpoints
        snapshot: Derived[ObjectKey, Snapshot] = graph.derive("gRPC projection", self._compute)
        self.snapshots = graph.root(self.wanted.all_keys, snapshot)

    def _compute(self, key: ObjectKey) -> Snapshot:
        found: dict[str, dict[str, Resource]] = {
            each: {} for each in (xds.LISTENER, xds.ROUTE, xds.CLUSTER, xds.ENDPOINT)
        }
        used: dict[ir.ClusterId, None] = {}
        for target, routes in self._targets(key):
            plain = [route for route in routes if grpc_client.understands(route)]
            if not plain or not all(grpc_client.open_to_all(route) for route in routes):
                continue
            origins = tuple(dict.fromkeys(route.origin for route in plain))
            _put(found, Resource.of(xds.LISTENER, target, grpc_client.listener(target), origins))
            _put(found, Resource.of(xds.ROUTE, target, grpc_client.route_configuration(target, plain), origins))
            for route in plain:
                if isinstance(route.rule.action, ir.Forward):
                    used.update((b.cluster, None) for b in route.rule.action.backends if b.cluster is not None)
        for id_ in used:
            cluster = self._cluster(id_)
            if cluster is not None:
                _put(found, Resource.of(xds.CLUSTER, str(id_), grpc_client.cluster(cluster), (cluster.origin,)))
                body = grpc_client.endpoints(self._endpoints(id_))
                _put(found, Resource.of(xds.ENDPOINT, str(id_), body, (cluster.origin,)))
        return Snapshot(MappingProxyType({type_url: MappingProxyType(each) for type_url, each in found.items()}))


def _put(found: dict[str, dict[str, Resource]], resource: Resource) -> None:
    found[resource.type_url][resource.name] = resource
