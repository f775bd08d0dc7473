"""From objects to snapshots and statuses: what reads what. The semantics are in compile and translate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from controlplane.api.meta import ObjectKey
from controlplane.compile import backends, backendtls
from controlplane.conditions import ObjectStatus
from controlplane.graph import Derived, Graph, Posting, Table
from controlplane.pipeline.attachments import Attachments, is_route
from controlplane.pipeline.conflicts import Conflicts
from controlplane.pipeline.guards import Guards
from controlplane.pipeline.http import HttpRoutes
from controlplane.pipeline.infrastructure import Infrastructures
from controlplane.pipeline.listeners import Listeners
from controlplane.pipeline.objects import Admitted, Objects
from controlplane.pipeline.parts import Parts
from controlplane.pipeline.policies import PolicyIndex
from controlplane.pipeline.policy_statuses import PolicyStatuses
from controlplane.pipeline.projection import GrpcProjection
from controlplane.pipeline.reach import Reach
from controlplane.pipeline.statuses import Statuses
from controlplane.pipeline.upstreams import Typed, Upstreams
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource, Snapshot

Bindings = Mapping[tuple[str, int], tuple[tuple[str, int], ...]]
"""(`NAMESPACE/GATEWAY`, listener port) → the addresses and ports that Envoy binds."""


class Pipeline:
    """All derived collections. Set the tables of `objects` and `bindings`, call `stabilise`, take what changed.

    With `remote_backends_only` no backend is on the machine of Envoy itself. With `quota_mode` there is a service that
    divides limits among Envoys, and these have what it takes; without `rate_limit_service` there is none that counts.
    """

    def __init__(
        self, *, remote_backends_only: bool = False, quota_mode: bool = False, rate_limit_service: bool = True
    ) -> None:
        graph = self.graph = Graph()
        self.objects = Objects(
            graph,
            waiting=self._waits_for,
            remote_backends_only=remote_backends_only,
            quota_mode=quota_mode,
            rate_limit_service=rate_limit_service,
        )
        self.policies = PolicyIndex(graph, self.objects)
        attachments = self._attachments = Attachments(graph, self.objects)
        self._conflicts = Conflicts(graph, age=attachments.age)
        graph.post("attached routes", attachments.routes, self._attached)
        reach = Reach(self.objects, self.policies, attachments)
        self.guards = Guards(
            graph,
            self.objects,
            self.policies.keys,
            gateways=attachments.our_gateways,
            merges=reach.merges,
        )
        self._http = HttpRoutes(graph, self.objects, attachments, self.policies)
        self._listeners = Listeners(graph, self.objects, attachments)
        self.bindings = self._listeners.bindings
        self._upstreams = Upstreams(graph, self.objects, attachments.used_clusters.get)
        self._client_certificate: Derived[ObjectKey, backendtls.ClientCertificate] = graph.derive(
            "client certificate", self._compute_client_certificate
        )
        self._typed = graph.derive("resources", self._compute_typed)
        self._snapshot = graph.derive("snapshot", self._compute_snapshot)
        self.snapshots = graph.root(attachments.our_gateways, self._snapshot)
        self.parts = Parts(self.objects, self.policies, attachments, self._listeners, self._http)
        self.infrastructure = Infrastructures(graph, self.objects, attachments)
        self.grpc = GrpcProjection(
            graph,
            targets=self._http.targets,
            cluster=lambda id_: backends.cluster(self.objects, id_),
            endpoints=lambda id_: backends.endpoints(self.objects, id_),
        )
        policies = PolicyStatuses(
            self.objects,
            self.policies,
            targets=reach.targets,
            of_parent=attachments.of_parent,
            compiled=attachments.compiled.get,
            places=lambda key: [place for place, _ in attachments.places(key)],
        )
        statuses = Statuses(self.objects, attachments, policy=policies.compute, conflict=self._conflicts.of)
        self._status: Derived[ObjectKey, ObjectStatus] = graph.derive("status", statuses.compute)
        self._every_key: Table[ObjectKey, None] = graph.table("every key")
        self.statuses = graph.root(self._every_key, self._status)

    def set_object(self, key: ObjectKey, admitted: Admitted) -> bool:
        """Sets the newest version of an object; returns whether it differs from what was there."""
        self._every_key.set(key, None)
        self.policies.set(key)
        if is_route(key):
            self._attachments.routes.set(key, None)
        return self.objects.table_of(key).set(key, admitted)

    def delete_object(self, key: ObjectKey) -> None:
        """Removes an object; nothing stands in for what was deleted."""
        self._every_key.delete(key)
        self.policies.delete(key)
        self._attachments.routes.delete(key)
        self.objects.accepted.delete(key)
        self.objects.table_of(key).delete(key)

    def is_waiting(self, key: ObjectKey) -> tuple[str, ...]:
        """Returns the host names, or URIs of key sets, that keep an object from being in force."""
        return self.objects.waiting(key)

    def gateway_ports(self) -> Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]:
        """Returns for each Gateway of ours the addresses that it asks for and the ports of its listeners."""
        out: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        for key in sorted(self._attachments.our_gateways(), key=self._attachments.age):
            spec = self.objects.get(key).spec
            addresses = tuple(a.value for a in spec.addresses if a.type == "IPAddress" and a.value)
            out[f"{key.namespace}/{key.name}"] = (
                addresses,
                tuple(dict.fromkeys(p.port for p in self._listeners.ports(key))),
            )
        return out

    def gateway_of(self, key: ObjectKey) -> ObjectKey | None:
        """Returns the Gateway of ours that a Gateway or ListenerSet belongs to."""
        found = self._attachments.of_parent(key)
        return found[0] if found is not None else None

    def listener_sets(self, gateway: ObjectKey) -> list[ObjectKey]:
        """Returns the ListenerSets that name a Gateway."""
        return sorted(self._attachments.sets.get(gateway))

    def wanted_key_sets(self) -> Mapping[str, float]:
        """Returns the URIs of the key sets that policies name, and how often to fetch each, in seconds."""
        return self.policies.wanted_key_sets()

    def wanted_hosts(self) -> frozenset[str]:
        """Returns the host names that Backends name, in force or about to be."""
        return self._upstreams.wanted_hosts()

    def _attached(self, key: ObjectKey) -> Iterable[Posting]:
        """Yields all that a route says of itself once it is known where it is."""
        compiled = self._attachments.compiled.get(key)
        yield from self._attachments.postings(key, compiled)
        yield from self._conflicts.postings(key, compiled, self._attachments.attachment.get(key).places)

    def _waits_for(self, key: ObjectKey, newest: Any) -> tuple[str, ...]:
        """Returns what keeps the newest version of an object, which has no fault, from being in force."""
        if key.kind == "Backend":
            names = [e.fqdn.hostname for e in newest.spec.endpoints if e.fqdn is not None]
            return tuple(name for name in names if self.objects.addresses(name) is None)
        if key.kind == "SecurityPolicy":
            return self.policies.awaited_key_sets(key, newest)
        if not is_route(key):
            return ()
        clusters = self._attachments.compiled.newest(key).clusters()
        used = dict.fromkeys(id_ for id_ in clusters if id_.kind == "Backend")
        found = (host for id_ in used for host in backends.unresolved_hosts(self.objects, id_))
        return tuple(dict.fromkeys(found))

    def _compute_client_certificate(self, key: ObjectKey) -> backendtls.ClientCertificate:
        found = self.objects.get(key)
        if found is None:
            return backendtls.ClientCertificate()
        return backendtls.client_certificate(self.objects, found)

    def _compute_typed(self, key: tuple[ObjectKey, str]) -> Typed:
        return self._resources_of_type[key[1]](self, key[0])

    def _compute_snapshot(self, key: ObjectKey) -> Snapshot:
        typed = {type_url: self._typed.get((key, type_url)) for type_url in self._resources_of_type}
        return Snapshot(MappingProxyType(typed))

    def _all_clusters(self, key: ObjectKey) -> Typed:
        shown = self._client_certificate.get(key).secret
        return _named(self.guards.clusters(), beside=self._upstreams.clusters(key, certificate=shown))

    def _all_endpoints(self, key: ObjectKey) -> Typed:
        return _named(self.guards.assignments(), beside=self._upstreams.endpoints(key))

    def _all_secrets(self, key: ObjectKey) -> Typed:
        shown = self._client_certificate.get(key).secret
        certificates = [self._listeners.certificate(shown)] if shown is not None else []
        return _named([*self._listeners.secrets(key), *certificates, *self._upstreams.secrets(key)])

    def _all_routes(self, key: ObjectKey) -> Typed:
        return _named(self._http.configuration(key, name) for name in self._listeners.route_configurations(key))

    _resources_of_type: Mapping[str, Callable[[Pipeline, ObjectKey], Typed]] = MappingProxyType(
        {
            xds.SECRET: _all_secrets,
            xds.CLUSTER: _all_clusters,
            xds.ENDPOINT: _all_endpoints,
            xds.EXTENSION_CONFIG: lambda self, key: _named(self.guards.extensions(key)),
            xds.LISTENER: lambda self, key: _named(self._listeners.listeners(key)),
            xds.ROUTE: _all_routes,
        }
    )


def _named(found: Iterable[Resource | None], *, beside: Typed | None = None) -> Typed:
    """Returns resources by name, behind those that there are already."""
    typed = beside.copy() if beside is not None else {}
    typed |= {each.name: each for each in found if each is not None}
    return MappingProxyType(typed)
