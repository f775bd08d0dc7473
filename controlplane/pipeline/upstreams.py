"""Clusters, their endpoints, and whom they trust: derived from the backends that routes name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import backends, shares
from controlplane.graph import Change, Derived, Fold, Graph
from controlplane.pipeline.objects import Objects
from controlplane.translate import clusters
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource

Shown = tuple[ObjectKey, str | None]
"""A Gateway, and the certificate that it shows to backends."""
Typed = MappingProxyType[str, Resource]
Trusted = MappingProxyType[ir.ClusterId, Resource]


class Upstreams:
    """The resources of clusters, by their identity."""

    def __init__(self, graph: Graph, objects: Objects, used: Callable[[ObjectKey], frozenset[ir.ClusterId]]) -> None:
        """`used` returns the clusters that routes of a Gateway use; there may be thousands, of which one changes."""
        self._objects = objects
        self._cluster: Derived[tuple[ir.ClusterId, str | None], Resource | None] = graph.derive(
            "cluster", self._compute_cluster
        )
        self._blocked: Derived[ir.ClusterId, bool] = graph.derive("blocked cluster", self._compute_blocked)
        self._endpoints: Derived[ir.ClusterId, Resource] = graph.derive("endpoints", self._compute_endpoints)
        self._authorities: Derived[ir.ClusterId, Resource | None] = graph.derive(
            "authorities", self._compute_authorities
        )
        self._served: Derived[ir.ClusterId, Resource | None] = graph.derive(
            "served endpoints", lambda id_: None if self._blocked.get(id_) else self._endpoints.get(id_)
        )
        self._clusters: Fold[Shown, ir.ClusterId, Resource | None, Typed] = graph.fold(
            "clusters", lambda key: used(key[0]), self._cluster, lambda key, id_: (id_, key[1]), _updated
        )
        self._assignments: Fold[ObjectKey, ir.ClusterId, Resource | None, Typed] = graph.fold(
            "assignments", used, self._served, lambda _, id_: id_, _updated
        )
        self._trusted: Fold[ObjectKey, ir.ClusterId, Resource | None, Trusted] = graph.fold(
            "trusted authorities", used, self._authorities, lambda _, id_: id_, _counted
        )

    def clusters(self, gateway: ObjectKey, *, certificate: str | None = None) -> Typed:
        """Returns the clusters that a Gateway's routes use; `certificate` is shown to backends that ask."""
        return self._clusters.get((gateway, certificate))

    def endpoints(self, gateway: ObjectKey) -> Typed:
        """Returns the endpoints of the clusters that there are and that may be used."""
        return self._assignments.get(gateway)

    def secrets(self, gateway: ObjectKey) -> Iterable[Resource]:
        """Returns whom the clusters trust, where that is not the system's choice; several may trust the same."""
        found = {each.name: each for each in self._trusted.get(gateway).values()}
        return [found[name] for name in sorted(found)]

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


def _updated(_: object, before: Typed | None, changes: Mapping[ir.ClusterId, Change[Resource | None]]) -> Typed:
    """Returns the resources of clusters by name, in its order, after changes of some."""
    found = before.copy() if before is not None else {}
    known = len(found)
    for id_, change in changes.items():
        if change.after is not None:
            found[str(id_)] = change.after
        elif change.before is not None:
            del found[str(id_)]
            known -= 1
    return MappingProxyType(found if len(found) == known else dict(sorted(found.items())))


def _counted(_: object, before: Trusted | None, changes: Mapping[ir.ClusterId, Change[Resource | None]]) -> Trusted:
    found = before.copy() if before is not None else {}
    for id_, change in changes.items():
        found.pop(id_, None)
        if change.after is not None:
            found[id_] = change.after
    return MappingProxyType(found)
