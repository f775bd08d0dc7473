"""Which listeners Gateways have, and which routes are on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from zlib import crc32

from controlplane import ir
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile import attachment, gateway, listenerset, overlaps, rivals, streams
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.protocols import ROUTES, STREAM_ROUTES
from controlplane.compile.serving import Serving, serving
from controlplane.conditions import Condition
from controlplane.graph import Derived, Graph, Index, Posting, Table
from controlplane.pipeline.compiled import CompiledRoutes
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.policies import Place

Judged = tuple[gateway.GatewayListener, ...]
Age = tuple[float, str, ObjectKey]
Places = Sequence[tuple[Place, tuple[str, ...]]]
"""Listeners, and the domains that a route has there."""
SHARDS: Final = 64
_NOBODY: Mapping[ObjectKey, ObjectKey] = MappingProxyType({})


def shard_of(domain: str) -> int:
    """Returns the shard that a domain is in: a function of the domain alone, on every machine."""
    return crc32(domain.encode()) % SHARDS


def is_route(key: ObjectKey) -> bool:
    """Says whether an object is a route of any kind."""
    return key.group == GATEWAY_GROUP and key.kind in ROUTES


class Attachments:
    """Derived collections of listeners and of the routes on them; `routes` is to hold the key of every route."""

    def __init__(self, graph: Graph, objects: Objects) -> None:
        self._objects = objects
        self.routes: Table[ObjectKey, None] = graph.table("routes")
        self.sets: Index[ObjectKey, ObjectKey] = graph.group(
            "listener sets", objects.table(GATEWAY_GROUP, "ListenerSet"), self._parent_of_set
        )
        self.judged: Derived[ObjectKey, Judged | None] = graph.derive("listeners", self._compute_judged)
        # Each listener and each object by itself: there may be thousands, of which a change touches one.
        self._by_id: Derived[ObjectKey, Mapping[str, gateway.GatewayListener]] = graph.derive(
            "listeners by id", lambda key: {each.id: each for each in self.judged.get(key) or ()}
        )
        self._by_owner: Derived[ObjectKey, Mapping[ObjectKey, Judged] | None] = graph.derive(
            "listeners by owner", self._compute_by_owner
        )
        self._listener: Derived[Place, gateway.GatewayListener | None] = graph.derive(
            "listener at", lambda place: self._by_id.get(place.gateway).get(place.listener)
        )
        self._of_parent: Derived[ObjectKey, tuple[ObjectKey, Judged] | None] = graph.derive(
            "listeners of a parent", self._compute_of_parent
        )
        self.serving: Derived[ObjectKey, Serving] = graph.derive(
            "serving", lambda key: serving(key, self.judged.get(key) or ())
        )
        self.overlaps: Derived[ObjectKey, Mapping[str, Condition]] = graph.derive(
            "overlaps", lambda key: overlaps.overlaps(self.judged.get(key) or ())
        )
        self.attachment: Derived[ObjectKey, attachment.Attachment] = graph.derive(
            "attachment", self._compute_attachment
        )
        self.compiled = CompiledRoutes(graph, objects)
        self.hosted: Index[tuple[Place, str], ObjectKey] = graph.index("hosted")
        self.domains: Index[Place, str] = graph.index("domains")
        self.domains_in_shard: Index[tuple[Place, int], str] = graph.index("domains in shards")
        self._calls: Index[Place, ObjectKey] = graph.index("calls")
        graph.post_values("placed routes", self.routes, self.attachment, self._placed)
        self.rejected: Derived[Place, Mapping[ObjectKey, ObjectKey]] = graph.derive("rejected", self._compute_rejected)
        # What `postings` yields, whoever posts it.
        self.on_listener: Index[Place, ObjectKey] = graph.index("on listener")
        self.used_clusters: Index[ObjectKey, ir.ClusterId] = graph.index("used clusters")
        self.gateways_of_service: Index[tuple[str, str], ObjectKey] = graph.index("gateways of a service")

    def our_gateways(self) -> list[ObjectKey]:
        """Returns the Gateways of our class that are in force."""
        keys = self._objects.table(GATEWAY_GROUP, "Gateway").all_keys()
        return [key for key in keys if self.judged.get(key)]

    def places(self, route: ObjectKey) -> Places:
        """Returns the listeners that a route is on, and its domains there; `rejected` says where another has them."""
        return [(Place(p.gateway, p.listener), p.domains) for p in self.attachment.get(route).places]

    def listener_of(self, place: Place) -> gateway.GatewayListener | None:
        """Returns the listener at a place."""
        return self._listener.get(place)

    def of_parent(self, parent: ObjectKey) -> tuple[ObjectKey, Sequence[gateway.GatewayListener]] | None:
        """Returns the Gateway of a Gateway or ListenerSet, and the listeners of the object itself; None if not ours."""
        return self._of_parent.get(parent)

    def gateway_of_set(self, key: ObjectKey) -> ObjectKey | None:
        """Returns the Gateway that a ListenerSet names."""
        found = self._objects.get(key)
        if found is None:
            return None
        ref = found.spec.parent_ref
        return ObjectKey(ref.group, ref.kind, ref.namespace or key.namespace, ref.name)

    def wanted_by(self, route: Any) -> attachment.Attachment:
        """Returns where a route would be that is not in force."""
        return attachment.attach(self._objects, route, self.of_parent)

    def postings(self, key: ObjectKey, compiled: CompiledRoute) -> Iterable[Posting]:
        """Yields the listeners that a route is on, and the clusters that it uses."""
        places = self.places(key)
        for place in self._accepted_at(key, places, compiled):
            yield self.on_listener, place, key
        for user, id_ in self._clusters_of_route(key, places, compiled):
            yield self.used_clusters, user, id_
            if id_.kind == "Service":
                yield self.gateways_of_service, (id_.namespace, id_.name), user

    def age(self, key: ObjectKey) -> Age:
        """Orders objects: the older first, then by `NAMESPACE/NAME` (Gateway API: conflict resolution)."""
        created = self._objects.get(key).metadata.creation_timestamp
        return (created.timestamp() if created else 0.0, f"{key.namespace}/{key.name}", key)

    def _parent_of_set(self, key: ObjectKey) -> list[tuple[ObjectKey, ObjectKey]]:
        parent = self.gateway_of_set(key)
        return [(parent, key)] if parent is not None else []

    def _compute_judged(self, key: ObjectKey) -> Judged | None:
        """Judges the listeners of a Gateway and of its ListenerSets; None for one that is not of our class.

        A Gateway of ours that never was good has none.
        """
        found = self._objects.get(key)
        admitted = self._objects.candidate(key)
        newest = found or (admitted.object if admitted is not None else None)
        if newest is None:
            return None
        class_ = self._objects.get(ObjectKey(GATEWAY_GROUP, "GatewayClass", "", newest.spec.gateway_class_name))
        if class_ is None or class_.spec.controller_name != gateway.CONTROLLER_NAME:
            return None
        if found is None:
            return ()
        sets = [self._objects.get(each) for each in sorted(self.sets.get(key), key=self.age)]
        return gateway.listeners(
            self._objects, found, [each for each in sets if listenerset.allowed(self._objects, found, each)]
        )

    def _compute_by_owner(self, key: ObjectKey) -> Mapping[ObjectKey, Judged] | None:
        judged = self.judged.get(key)
        if judged is None:
            return None
        found: dict[ObjectKey, list[gateway.GatewayListener]] = {}
        for each in judged:
            found.setdefault(each.owner, []).append(each)
        return {owner: tuple(members) for owner, members in found.items()}

    def _compute_of_parent(self, parent: ObjectKey) -> tuple[ObjectKey, Judged] | None:
        owner = parent if parent.kind == "Gateway" else self.gateway_of_set(parent)
        found = self._by_owner.get(owner) if owner is not None else None
        return (owner, found.get(parent, ())) if owner is not None and found is not None else None

    def _compute_attachment(self, key: ObjectKey) -> attachment.Attachment:
        route = self._objects.get(key)
        if route is None:
            return attachment.Attachment()
        return attachment.attach(self._objects, route, self.of_parent)

    def _placed(self, key: ObjectKey, attached: attachment.Attachment) -> Iterable[Posting]:
        for each in attached.places:
            place = Place(each.gateway, each.listener)
            for domain in each.domains:
                yield self.hosted, (place, domain), key
                yield self.domains, place, domain
                yield self.domains_in_shard, (place, shard_of(domain)), domain
            if key.kind == "GRPCRoute":
                yield self._calls, place, key

    def _accepted_at(self, key: ObjectKey, places: Places, compiled: CompiledRoute) -> Iterable[Place]:
        """Yields the listeners that count a route as attached (Gateway API: ListenerStatus.attachedRoutes)."""
        if all(fault.type != "Accepted" for fault in compiled.faults):
            yield from (place for place, _ in places if key not in self.rejected.get(place))

    def _compute_rejected(self, place: Place) -> Mapping[ObjectKey, ObjectKey]:
        """Returns which HTTPRoutes and GRPCRoutes lose their hostname to one of the other kind, and to which."""
        calls = self._calls.get(place)
        if not calls:
            return _NOBODY
        wanted: rivals.Domains[ObjectKey] = rivals.Domains()
        for key in calls:
            for domain in self._domains_at(key, place):
                wanted.add(domain, key)
        shared = [domain for domain in self.domains.get(place) if wanted.meets(domain) is not None]
        members = {key for domain in shared for key in self.hosted.get((place, domain))}
        in_order = sorted(members, key=self.age)
        return rivals.losers(rivals.Rival(key, key.kind, self._domains_at(key, place)) for key in in_order)

    def _domains_at(self, key: ObjectKey, place: Place) -> tuple[str, ...]:
        return next((domains for at, domains in self.places(key) if at == place), ())

    def _clusters_of_route(
        self, key: ObjectKey, places: Places, compiled: CompiledRoute
    ) -> Iterable[tuple[ObjectKey, ir.ClusterId]]:
        if key.kind in STREAM_ROUTES:
            return dict.fromkeys(self._clusters_of_stream(key, places, compiled))
        used = dict.fromkeys(compiled.clusters())
        return [(each, cluster) for each in dict.fromkeys(place.gateway for place, _ in places) for cluster in used]

    def _clusters_of_stream(
        self, key: ObjectKey, places: Places, compiled: CompiledRoute
    ) -> Iterable[tuple[ObjectKey, ir.ClusterId]]:
        for place, _ in places:
            listener = self.listener_of(place)
            for backend in streams.passed_on(listener, key, compiled.backends) if listener is not None else ():
                if backend.cluster is not None:
                    yield place.gateway, backend.cluster
