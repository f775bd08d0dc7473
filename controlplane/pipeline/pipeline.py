"""From objects to snapshots and statuses: what reads what. The semantics are in compile and translate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from controlplane import ir
from controlplane.api.httproute import HTTPRoute
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile import attachment, backends, gateway, hosts, httproute, precedence
from controlplane.conditions import ObjectStatus
from controlplane.graph import Derived, Graph, Group, Table
from controlplane.pipeline.conflicts import Conflicts
from controlplane.pipeline.guards import Guards
from controlplane.pipeline.objects import Admitted, Objects
from controlplane.pipeline.policies import Place, PolicyIndex, RoutePolicies
from controlplane.pipeline.policy_statuses import PolicyStatuses
from controlplane.pipeline.projection import GrpcProjection
from controlplane.pipeline.statuses import Statuses
from controlplane.pipeline.upstreams import Upstreams
from controlplane.translate import listeners, routes, tree
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource, Snapshot

Bindings = Mapping[tuple[str, int], tuple[tuple[str, int], ...]]
"""(`NAMESPACE/GATEWAY`, listener port) → the addresses and ports that Envoy binds."""


class Entry(NamedTuple):
    """One route, with its rank among those of its host."""

    rank: precedence.Rank
    route: ir.Route


Ranked = tuple[int, Entry, tuple[Place, ObjectKey], int]
"""How far the hostname is from the domain, the route, and where its bytes are to be read."""

# From here on a virtual host's routes stand in a matcher tree: below, a list is as fast, and Envoy builds it sooner.
TREE_FROM = 100


class Host(NamedTuple):
    """One virtual host, encoded as a part of a RouteConfiguration, and the objects that it was made from."""

    part: bytes
    origins: tuple[str, ...]


class Pipeline:
    """All derived collections. Set the tables of `objects` and `bindings`, call `stabilise`, take what changed."""

    def __init__(self) -> None:
        graph = self.graph = Graph()
        self.objects = Objects(graph, waiting=lambda key: self._waiting.get(key))
        self.bindings: Table[tuple[str, int], tuple[tuple[str, int], ...]] = graph.table("bindings")
        self._waiting: Derived[ObjectKey, tuple[str, ...]] = graph.derive("waiting", self._compute_waiting)
        self._judged = graph.derive("listeners", self._compute_judged)
        self._attachment = graph.derive("attachment", self._compute_attachment)
        self._candidate = graph.derive("compiled candidate", self._compute_candidate)
        self._compiled = graph.derive("compiled route", self._compute_compiled)
        self.policies = PolicyIndex(graph, self.objects)
        self._index_routes(graph)
        self.guards = Guards(
            graph,
            self.objects,
            self.objects.table(GATEWAY_GROUP, "HTTPRoute"),
            gateways=self._our_gateways,
            in_force=self._policies_of_route,
        )
        self._entries = graph.derive("entries", self._compute_entries)
        self._bodies = graph.derive("route bodies", self._compute_bodies)
        self._alternatives = graph.derive("tree alternatives", self._compute_alternatives)
        self._host = graph.derive("virtual host", self._compute_host)
        self._config_domains = graph.derive("route configuration domains", self._compute_domains)
        self._route_config = graph.derive("route configuration", self._compute_route_config)
        self._ports = graph.derive("ports", self._compute_ports)
        self._listener = graph.derive("listener", self._compute_listener)
        self._secret = graph.derive("secret", self._compute_secret)
        self._upstreams = Upstreams(graph, self.objects)
        self._typed = graph.derive("resources", self._compute_typed)
        self._snapshot = graph.derive("snapshot", self._compute_snapshot)
        self.snapshots = graph.root(self._our_gateways, self._snapshot)
        self.grpc = GrpcProjection(
            graph,
            targets=self._grpc_targets,
            cluster=lambda id_: backends.cluster(self.objects, id_),
            endpoints=lambda id_: backends.endpoints(self.objects, id_),
        )
        policies = PolicyStatuses(
            self.objects,
            self.policies,
            judged=self._judged.get,
            compiled=self._compiled.get,
            places=lambda key: [place for place, _ in self._places(key)],
        )
        statuses = Statuses(
            self.objects,
            policy=policies.compute,
            judged=self._judged.get,
            attachment=self._attachment.get,
            compiled=self._compiled.get,
            conflict=self._conflicts.of,
            attached_routes=lambda key, listener: len(self._on_listener.get(Place(key, listener))),
        )
        self._status: Derived[ObjectKey, ObjectStatus] = graph.derive("status", statuses.compute)
        self._every_key: Table[ObjectKey, None] = graph.table("every key")
        self.statuses = graph.root(self._every_key.all_keys, self._status)

    def set_object(self, key: ObjectKey, admitted: Admitted) -> bool:
        """Sets the newest version of an object; returns whether it differs from what was there."""
        self._every_key.set(key, None)
        self.policies.set(key)
        return self.objects.table_of(key).set(key, admitted)

    def delete_object(self, key: ObjectKey) -> None:
        """Removes an object; nothing stands in for what was deleted."""
        self._every_key.delete(key)
        self.policies.delete(key)
        self.objects.accepted.delete(key)
        self.objects.table_of(key).delete(key)

    def is_waiting(self, key: ObjectKey) -> tuple[str, ...]:
        """Returns the host names, or URIs of key sets, that keep an object from being in force."""
        return self._waiting.get(key)

    def gateway_ports(self) -> Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]:
        """Returns for each Gateway of ours the addresses that it asks for and the ports of its listeners."""
        out: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        for key in sorted(self._our_gateways(), key=self._age):
            spec = self.objects.get(key).spec
            addresses = tuple(a.value for a in spec.addresses if a.type == "IPAddress" and a.value)
            out[f"{key.namespace}/{key.name}"] = (addresses, tuple(dict.fromkeys(p.port for p in self._ports.get(key))))
        return out

    def _age(self, key: ObjectKey) -> tuple[float, ObjectKey]:
        created = self.objects.get(key).metadata.creation_timestamp
        return (created.timestamp() if created else 0.0, key)

    def wanted_key_sets(self) -> Mapping[str, float]:
        """Returns the URIs of the key sets that policies name, and how often to fetch each, in seconds."""
        return self.policies.wanted_key_sets()

    def wanted_hosts(self) -> frozenset[str]:
        """Returns the host names that Backends name, in force or about to be."""
        return self._upstreams.wanted_hosts()

    # -- which routes are where --

    def _index_routes(self, graph: Graph) -> None:
        table = self.objects.table(GATEWAY_GROUP, "HTTPRoute")
        self._hosted: Group[ObjectKey, tuple[Place, str], ObjectKey] = graph.group(
            "hosted", table, lambda key: [((p, d), key) for p, domains in self._places(key) for d in domains]
        )
        self._domains: Group[ObjectKey, Place, str] = graph.group(
            "domains", table, lambda key: [(p, d) for p, domains in self._places(key) for d in domains]
        )
        self._on_listener: Group[ObjectKey, Place, ObjectKey] = graph.group(
            "on listener", table, lambda key: [(p, key) for p, _ in self._places(key)]
        )
        self._used_clusters: Group[ObjectKey, ObjectKey, ir.ClusterId] = graph.group(
            "used clusters", table, self._clusters_of_route
        )
        self._conflicts = Conflicts(
            graph,
            table,
            places=lambda key: self._attachment.get(key).places,
            compiled=self._compiled.get,
            age=self._age,
        )

    def _places(self, key: ObjectKey) -> Iterable[tuple[Place, tuple[str, ...]]]:
        return [(Place(p.gateway, p.listener), p.domains) for p in self._attachment.get(key).places]

    def _clusters_of_route(self, key: ObjectKey) -> list[tuple[ObjectKey, ir.ClusterId]]:
        gateways = {place.gateway for place, _ in self._places(key)}
        if not gateways:
            return []
        used = dict.fromkeys(self._compiled.get(key).clusters())
        return [(each, cluster) for each in gateways for cluster in used]

    # -- compile --

    def _our_gateways(self) -> list[ObjectKey]:
        keys = self.objects.table(GATEWAY_GROUP, "Gateway").all_keys()
        return [key for key in keys if self._judged.get(key) is not None]

    def _compute_judged(self, key: ObjectKey) -> tuple[gateway.GatewayListener, ...] | None:
        found = self.objects.get(key)
        if found is None:
            return None
        class_ = self.objects.get(ObjectKey(GATEWAY_GROUP, "GatewayClass", "", found.spec.gateway_class_name))
        if class_ is None or class_.spec.controller_name != gateway.CONTROLLER_NAME:
            return None
        return gateway.listeners(self.objects, found)

    def _compute_attachment(self, key: ObjectKey) -> attachment.Attachment:
        route = self.objects.get(key)
        if route is None:
            return attachment.Attachment()
        return attachment.attach(self.objects, route, self._judged.get)

    def _compute_candidate(self, key: ObjectKey) -> httproute.CompiledRoute:
        admitted = self.objects.candidate(key)
        if admitted is None or not admitted.good:
            return httproute.CompiledRoute()
        return httproute.compile_route(self.objects, admitted.object)

    def _compute_compiled(self, key: ObjectKey) -> httproute.CompiledRoute:
        route = self.objects.get(key)
        if route is None:
            return httproute.CompiledRoute()
        admitted = self.objects.candidate(key)
        if admitted is not None and admitted.object is route:
            return self._candidate.get(key)
        return httproute.compile_route(self.objects, route)

    def _compute_waiting(self, key: ObjectKey) -> tuple[str, ...]:
        admitted = self.objects.candidate(key)
        if admitted is None or not admitted.good:
            return ()
        if key.kind == "Backend":
            names = [e.fqdn.hostname for e in admitted.object.spec.endpoints if e.fqdn is not None]
            return tuple(name for name in names if self.objects.addresses(name) is None)
        if key.kind == "SecurityPolicy":
            return self.policies.awaited_key_sets(key, admitted.object)
        if not isinstance(admitted.object, HTTPRoute):
            return ()
        used = dict.fromkeys(id_ for id_ in self._candidate.get(key).clusters() if id_.kind == "Backend")
        found = (host for id_ in used for host in backends.unresolved_hosts(self.objects, id_))
        return tuple(dict.fromkeys(found))

    def _policies_of_route(self, key: ObjectKey) -> Iterable[tuple[Place, RoutePolicies]]:
        return [(place, self.policies.merged.get((place, key))) for place, _ in self._places(key)]

    # -- translate --

    def _compute_entries(self, key: tuple[Place, ObjectKey]) -> tuple[Entry, ...]:
        place, route_key = key
        route = self.objects.get(route_key)
        listener = self._listener_of(place)
        if route is None or listener is None:
            return ()
        created, name = route.metadata.creation_timestamp, f"{route_key.namespace}/{route_key.name}"
        entries: list[Entry] = []
        in_force = self.policies.merged.get(key)
        for index, rule in enumerate(self._compiled.get(route_key).rules):
            policies = in_force.of(rule.name).policies
            for position, match in enumerate(rule.matches):
                rank = precedence.rank(match, created=created, route=name, rule_index=index, match_index=position)
                title = f"{route_key.kind}/{name}/{rule.name}"
                entries.append(Entry(rank, ir.Route(title, match, rule, policies, str(route_key))))
        return tuple(entries)

    def _compute_bodies(self, key: tuple[Place, ObjectKey]) -> tuple[bytes, ...]:
        return self._encoded(key, routes.route)

    def _compute_alternatives(self, key: tuple[Place, ObjectKey]) -> tuple[bytes, ...]:
        return self._encoded(key, routes.alternative)

    def _encoded(self, key: tuple[Place, ObjectKey], encode: Callable[..., bytes]) -> tuple[bytes, ...]:
        listener = self._listener_of(key[0])
        if listener is None:
            return ()
        https = listener.protocol == "HTTPS"
        return tuple(encode(entry.route, port=listener.port, https=https) for entry in self._entries.get(key))

    def _compute_host(self, key: tuple[Place, str]) -> Host:
        """Assembles a virtual host; routes of less specific hostnames come after those of more specific ones."""
        domain = key[1]
        ranked = self._ranked(key)
        made_from = ((entry.route.origin, *entry.route.policies.origins) for _, entry, _, _ in ranked)
        origins = tuple(dict.fromkeys(origin for each in made_from for origin in each))
        if len(ranked) < TREE_FROM or not tree.suits(entry.route.match for _, entry, _, _ in ranked):
            body = routes.virtual_host(domain, (self._bodies.get(at)[i] for _, _, at, i in ranked))
            return Host(routes.part(body), origins)
        stages: dict[int, list[tree.Branch]] = {}
        for distance, entry, at, i in ranked:
            branch = tree.Branch(
                entry.route.match, self._read_at(self._alternatives, at, i), self._read_at(self._bodies, at, i)
            )
            stages.setdefault(distance, []).append(branch)
        return Host(routes.part(routes.virtual_host_of_tree(domain, list(stages.values()))), origins)

    def _ranked(self, key: tuple[Place, str]) -> list[Ranked]:
        """Returns the routes of a host in the order of precedence."""
        place, domain = key
        ranked: list[Ranked] = []
        seen: set[ObjectKey] = set()
        for distance, pattern in enumerate(hosts.candidates(domain)):
            members = self._hosted.get((place, pattern)) - seen
            seen |= members
            for route in members:
                here = (place, route)
                ranked += [(distance, entry, here, i) for i, entry in enumerate(self._entries.get(here))]
        ranked.sort(key=lambda item: (item[0], item[1].rank))
        return ranked

    def _grpc_targets(self, key: ObjectKey) -> Iterable[tuple[str, list[ir.Route]]]:
        for listener in self._judged.get(key) or ():
            place = Place(key, listener.name)
            for domain in sorted(self._domains.get(place)) if listener.serves else ():
                if not domain.startswith("*"):
                    yield domain, [entry.route for _, entry, _, _ in self._ranked((place, domain))]

    def _read_at(
        self, bodies: Derived[tuple[Place, ObjectKey], tuple[bytes, ...]], at: tuple[Place, ObjectKey], index: int
    ) -> Callable[[], bytes]:
        return lambda: bodies.get(at)[index]

    def _compute_domains(self, key: tuple[ObjectKey, str]) -> tuple[tuple[str, Place | None], ...]:
        """Returns the domains of a route configuration in their order, and whose each is; None: another connection's.

        Apart from the hosts, since most changes of routes leave their domains as they are.
        """
        gateway_key, name = key
        identity = f"{gateway_key.namespace}/{gateway_key.name}"
        serving = [each for each in self._judged.get(gateway_key) or () if each.serves]
        mine = [each for each in serving if gateway.route_config_name(identity, each) == name]
        peers = [each for each in serving if mine and each.port == mine[0].port]
        owners = {(each.hostname or hosts.ANY).lower(): each for each in peers}
        found: dict[str, Place | None] = {}
        for listener in mine:
            place = Place(gateway_key, listener.name)
            for domain in {*self._domains.get(place), (listener.hostname or hosts.ANY).lower()}:
                owner = owners[hosts.most_specific(owners, domain) or hosts.ANY]
                if owner in mine:
                    found[domain] = Place(gateway_key, owner.name)
        if mine and mine[0].protocol == "HTTPS":
            found |= dict.fromkeys(hosts.misdirected(mine[0].hostname, owners))
        return tuple(sorted(found.items(), key=lambda each: each[0]))

    def _compute_route_config(self, key: tuple[ObjectKey, str]) -> Resource:
        found = [
            Host(routes.part(routes.misdirected(domain)), ()) if place is None else self._host.get((place, domain))
            for domain, place in self._config_domains.get(key)
        ]
        body = routes.route_configuration(key[1], [host.part for host in found])
        origins = dict.fromkeys(chain.from_iterable(host.origins for host in found))
        return Resource.of(xds.ROUTE, key[1], body, tuple(origins))

    def _compute_ports(self, key: ObjectKey) -> tuple[ir.PortListener, ...]:
        found = self.objects.get(key)
        judged = self._judged.get(key)
        return gateway.port_listeners(found, judged) if found is not None and judged else ()

    def _compute_listener(self, key: tuple[ObjectKey, int]) -> Resource | None:
        gateway_key, port = key
        source = next((each for each in self._ports.get(gateway_key) if each.port == port), None)
        bind = self.bindings.get((f"{gateway_key.namespace}/{gateway_key.name}", port))
        if source is None or bind is None:
            return None
        body = listeners.listener(source, bind=bind)
        return Resource.of(xds.LISTENER, source.name, body, (source.origin,))

    def _compute_secret(self, name: str) -> Resource | None:
        source = gateway.certificate(self.objects, name)
        if source is None:
            return None
        return Resource.of(xds.SECRET, name, listeners.secret(source), (source.origin,))

    def _compute_typed(self, key: tuple[ObjectKey, str]) -> Mapping[str, Resource]:
        found = self._resources_of_type[key[1]](self, key[0])
        return MappingProxyType({each.name: each for each in found if each is not None})

    def _compute_snapshot(self, key: ObjectKey) -> Snapshot:
        typed = {type_url: self._typed.get((key, type_url)) for type_url in self._resources_of_type}
        return Snapshot(MappingProxyType(typed))

    def _all_clusters(self, key: ObjectKey) -> Iterable[Resource | None]:
        return (*self._upstreams.clusters(self._used_clusters.get(key)), *self.guards.clusters())

    def _all_secrets(self, key: ObjectKey) -> Iterable[Resource | None]:
        chains = (chain for port in self._ports.get(key) for chain in port.chains)
        yield from (self._secret.get(name) for name in sorted({n for chain in chains for n in chain.certificates}))
        yield from self._upstreams.secrets(self._used_clusters.get(key))

    def _all_listeners(self, key: ObjectKey) -> Iterable[Resource | None]:
        return (self._listener.get((key, each.port)) for each in self._ports.get(key))

    def _all_routes(self, key: ObjectKey) -> Iterable[Resource | None]:
        chains = (chain for port in self._ports.get(key) for chain in port.chains)
        return (self._route_config.get((key, name)) for name in sorted({chain.route_config for chain in chains}))

    _resources_of_type: Mapping[str, Callable[[Pipeline, ObjectKey], Iterable[Resource | None]]] = MappingProxyType(
        {
            xds.SECRET: _all_secrets,
            xds.CLUSTER: _all_clusters,
            xds.ENDPOINT: lambda self, key: self._upstreams.endpoints(self._used_clusters.get(key)),
            xds.EXTENSION_CONFIG: lambda self, key: self.guards.extensions(key),
            xds.LISTENER: _all_listeners,
            xds.ROUTE: _all_routes,
        }
    )

    def _listener_of(self, place: Place) -> gateway.GatewayListener | None:
        return next((each for each in self._judged.get(place.gateway) or () if each.name == place.listener), None)
