"""From routes of requests to RouteConfigurations: encoded once per route, then assembled from bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import NamedTuple

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import hosts, precedence
from controlplane.compile.protocols import PROTOCOLS
from controlplane.graph import Derived, Graph
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.policies import Place, PolicyIndex
from controlplane.translate import routes, tree
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource


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


class HttpRoutes:
    """Derived collections of what HTTPRoutes and GRPCRoutes become."""

    def __init__(self, graph: Graph, objects: Objects, attachments: Attachments, policies: PolicyIndex) -> None:
        self._objects = objects
        self._attachments = attachments
        self._policies = policies
        self._entries = graph.derive("entries", self._compute_entries)
        self._bodies = graph.derive("route bodies", self._compute_bodies)
        self._alternatives = graph.derive("tree alternatives", self._compute_alternatives)
        self._host = graph.derive("virtual host", self._compute_host)
        self._config_domains = graph.derive("route configuration domains", self._compute_domains)
        self._route_config = graph.derive("route configuration", self._compute_route_config)

    def configuration(self, gateway_key: ObjectKey, name: str) -> Resource:
        """Returns a RouteConfiguration of a Gateway."""
        return self._route_config.get((gateway_key, name))

    def domains(self, gateway_key: ObjectKey, name: str) -> tuple[tuple[str, Place | None], ...]:
        """Returns the domains of a RouteConfiguration, and whose each is; None: another connection's."""
        return self._config_domains.get((gateway_key, name))

    def routes(self, place: Place, domain: str) -> list[tuple[ObjectKey, Entry]]:
        """Returns the routes of a virtual host in the order in which they are tried, each with its object."""
        return [(at[1], entry) for _, entry, at, _ in self._ranked((place, domain))]

    def targets(self, key: ObjectKey) -> Iterable[tuple[str, list[ir.Route]]]:
        """Yields the exact domains of a Gateway, each with its routes in the order of precedence."""
        for listener in self._attachments.judged.get(key) or ():
            place = Place(key, listener.id)
            serves = listener.serves and PROTOCOLS[listener.protocol].http
            for domain in sorted(self._attachments.domains.get(place)) if serves else ():
                if not domain.startswith("*"):
                    yield domain, [entry.route for _, entry, _, _ in self._ranked((place, domain))]

    def _compute_entries(self, key: tuple[Place, ObjectKey]) -> tuple[Entry, ...]:
        place, route_key = key
        route = self._objects.get(route_key)
        listener = self._attachments.listener_of(place)
        if route is None or listener is None or route_key in self._attachments.rejected.get(place):
            return ()
        created, name = route.metadata.creation_timestamp, f"{route_key.namespace}/{route_key.name}"
        entries: list[Entry] = []
        in_force = self._policies.merged.get(key)
        for index, rule in enumerate(self._attachments.compiled.get(route_key).rules):
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
        listener = self._attachments.listener_of(key[0])
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
            members = self._attachments.hosted.get((place, pattern)) - seen
            seen |= members
            for route in members:
                here = (place, route)
                ranked += [(distance, entry, here, i) for i, entry in enumerate(self._entries.get(here))]
        ranked.sort(key=lambda item: (item[0], item[1].rank))
        return ranked

    def _read_at(
        self, bodies: Derived[tuple[Place, ObjectKey], tuple[bytes, ...]], at: tuple[Place, ObjectKey], index: int
    ) -> Callable[[], bytes]:
        return lambda: bodies.get(at)[index]

    def _compute_domains(self, key: tuple[ObjectKey, str]) -> tuple[tuple[str, Place | None], ...]:
        """Returns the domains of a route configuration in their order, and whose each is; None: another connection's.

        Apart from the hosts, since most changes of routes leave their domains as they are.
        """
        gateway_key, name = key
        served = self._attachments.serving.get(gateway_key)
        mine = dict.fromkeys(served.configurations.get(name, ()))
        found: dict[str, Place | None] = {}
        for place in (Place(gateway_key, id_) for id_ in mine):
            listener = self._attachments.listener_of(place)
            if listener is None:
                continue
            owners = served.hostnames[listener.port, listener.transport]
            for domain in {*self._attachments.domains.get(place), (listener.hostname or hosts.ANY).lower()}:
                owner = owners[hosts.most_specific(owners, domain) or hosts.ANY]
                if owner in mine:
                    found[domain] = Place(gateway_key, owner)
            if listener.protocol == "HTTPS":
                found |= dict.fromkeys(hosts.misdirected(listener.hostname, owners))
        return tuple(sorted(found.items(), key=lambda each: each[0]))

    def _compute_route_config(self, key: tuple[ObjectKey, str]) -> Resource:
        found = [
            Host(routes.part(routes.misdirected(domain)), ()) if place is None else self._host.get((place, domain))
            for domain, place in self._config_domains.get(key)
        ]
        body = routes.route_configuration(key[1], [host.part for host in found])
        # With those of every host: to drop what is there twice takes longer, and only a rejection asks for them.
        origins = tuple(chain.from_iterable(host.origins for host in found))
        return Resource.of(xds.ROUTE, key[1], body, origins)
