"""Clusters, their endpoints, and whom they trust: derived from the backends that routes name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controlplane import ir
from controlplane.compile import backends, shares
from controlplane.graph import Derived, Graph
from controlplane.pipeline.objects import Objects
from controlplane.translate import clusters
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource


class Upstreams:
    """The resources of clusters, by their identity."""

    def __init__(self, graph: Graph, objects: Objects) -> None:
        self._objects = objects
        self._cluster: Derived[tuple[ir.ClusterId, str | None], Resource | None] = graph.derive(
            "cluster", self._compute_cluster
        )
        self._blocked: Derived[ir.ClusterId, bool] = graph.derive("blocked cluster", self._compute_blocked)
        self._endpoints: Derived[ir.ClusterId, Resource] = graph.derive("endpoints", self._compute_endpoints)
        self._authorities: Derived[ir.ClusterId, Resource | None] = graph.derive(
            "authorities", self._compute_authorities
        )

    def clusters(self, used: Iterable[ir.ClusterId], *, certificate: str | None = None) -> Iterable[Resource | None]:
        """Yields the clusters, None for one whose backend has gone; `certificate` is shown to backends that ask."""
        return (self._cluster.get((id_, certificate)) for id_ in sorted(used, key=str))

    def endpoints(self, used: Iterable[ir.ClusterId]) -> Iterable[Resource | None]:
        """Yields the endpoints of the clusters that there are and that may be used."""
        return (self._endpoints.get(id_) for id_ in sorted(used, key=str) if not self._blocked.get(id_))

    def secrets(self, used: Iterable[ir.ClusterId]) -> Iterable[Resource | None]:
        """Yields whom the clusters trust, where that is not the system's choice; several may trust the same."""
        found = (self._authorities.get(id_) for id_ in sorted(used, key=str))
        return {each.name: each for each in found if each is not None}.values()

    def wanted_hosts(self) -> frozenset[str]:
        """Returns the host names that Backends name, in force or about to be."""
        found: set[str] = set()
        for group in backends.GROUPS:
            for key, admitted in self._objects.table(group, "Backend").items():
                for backend in (admitted.object if admitted.good else None, self._objects.accepted.peek(key)):
                    if backend is not None:
                        found.update(e.fqdn.hostname for e in backend.spec.endpoints if e.fqdn is not None)
        return frozenset(found)

    def _source(self, id_: ir.ClusterId) -> ir.Cluster | None:
        of = shares if id_.kind == "UDPRoute" else backends
        return of.cluster(self._objects, id_)

    def _compute_blocked(self, id_: ir.ClusterId) -> bool:
        source = self._source(id_)
        return source is None or source.blocked

    def _compute_cluster(self, key: tuple[ir.ClusterId, str | None]) -> Resource | None:
        id_, certificate = key
        source = self._source(id_)
        if source is None:
            return None
        if certificate is not None and source.tls is not None:
            source = replace(source, tls=replace(source.tls, client_certificate=certificate))
        return Resource.of(xds.CLUSTER, str(id_), clusters.cluster(source), (source.origin,))

    def _compute_endpoints(self, id_: ir.ClusterId) -> Resource:
        of = shares if id_.kind == "UDPRoute" else backends
        source = of.endpoints(self._objects, id_)
        return Resource.of(xds.ENDPOINT, str(id_), clusters.endpoints(source), (source.origin,))

    def _compute_authorities(self, id_: ir.ClusterId) -> Resource | None:
        source = backends.authorities(self._objects, id_)
        if source is None:
            return None
        return Resource.of(xds.SECRET, source.name, clusters.authorities(source.name, source.pem), (source.origin,))
