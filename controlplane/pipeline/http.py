"""From routes of requests to RouteConfigurations: encoded once per route, then assembled from bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import hosts, precedence
from controlplane.compile.protocols import PROTOCOLS
from controlplane.graph import Derived, Fold, Graph
from controlplane.pipeline import trees
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.pieces import Piece, Pieces, Surface
from controlplane.pipeline.policies import Place, PolicyIndex
from controlplane.pipeline.shards import SHARDS, Configuration, Domains, Shard
from controlplane.pipeline.trees import Placed, Stage, StageOrigins, Tree
from controlplane.translate import overlays, routes, tree
from controlplane.translate.overlays import Overlay
from controlplane.xds import resources as xds
from controlplane.xds.resources import Origins, Resource

# From here on a virtual host's routes stand in a matcher tree: below, a list is as fast, and Envoy builds it sooner.
TREE_FROM = 100

Ranked = tuple[int, precedence.Rank, Piece, ObjectKey]
"""How far the hostname is from the domain, the rank there, the route, and the object that it is of."""
_DIGEST_BYTES = 16


class Entry(NamedTuple):
    """One route, with its rank among those of its host."""

    rank: precedence.Rank
    route: ir.Route


class Part(NamedTuple):
    """A virtual host, or several, encoded as a part of a RouteConfiguration, and the objects that it was made from."""

    digest: bytes
    body: bytes
    origins: Sequence[str]


@dataclass(frozen=True, slots=True)
class OwnOverlays:
    """What lies over the rules of a route that has policies of its own."""

    default: Overlay
    rules: Mapping[str, Overlay]
    origins: tuple[str, ...]

    def of(self, rule: str) -> Overlay:
        """Returns what lies over a rule."""
        return self.rules.get(rule, self.default)


class HttpRoutes:
    """Derived collections of what HTTPRoutes and GRPCRoutes become.

    A virtual host reads the policies of its listener once, and those of a route only where the route has its own: so
    that a policy of a Gateway touches no route, whose bytes stay as they are.
    """

    def __init__(self, graph: Graph, objects: Objects, attachments: Attachments, policies: PolicyIndex) -> None:
        self._attachments = attachments
        self._policies = policies
        self._pieces = Pieces(graph, objects, attachments)
        self._domains = Domains(graph, attachments)
        self._overlay: Derived[Place, Overlay] = graph.derive(
            "overlay", lambda place: overlays.overlay(policies.inherited.get(place).default.policies)
        )
        self._own_overlays: Derived[tuple[Place, ObjectKey], OwnOverlays] = graph.derive(
            "own overlays", self._compute_own_overlays
        )
        self._laid: Derived[tuple[Place, ObjectKey], tuple[Placed, ...]] = graph.derive("laid", self._compute_laid)
        self._stage: Fold[tuple[Place, str], ObjectKey, tuple[Placed, ...], Stage] = graph.fold(
            "stage of a tree",
            members=attachments.hosted.get,
            values=self._laid,
            key=lambda stage, route: (stage[0], route),
            update=lambda _, before, changes: trees.updated(before, changes.values()),
        )
        self._tree: Derived[tuple[Place, str], Tree] = graph.derive(
            "tree", lambda key: trees.encoded(self._stage.get(key))
        )
        self._host: Derived[tuple[Place, str], Part] = graph.derive("virtual host", self._compute_host)
        self._misdirected: Derived[str, Part] = graph.derive(
            "misdirected", lambda domain: _part(routes.part(routes.misdirected(domain)), ())
        )
        self._shard: Derived[Shard, Part] = graph.derive("virtual hosts", self._compute_shard)
        self._route_config: Derived[Configuration, Resource] = graph.derive(
            "route configuration", self._compute_route_config
        )

    def configuration(self, gateway_key: ObjectKey, name: str) -> Resource:
        """Returns a RouteConfiguration of a Gateway."""
        return self._route_config.get((gateway_key, name))

    def domains(self, gateway_key: ObjectKey, name: str) -> tuple[tuple[str, Place | None], ...]:
        """Returns the domains of a RouteConfiguration, and whose each is; None: another connection's."""
        return self._domains.of((gateway_key, name))

    def routes(self, place: Place, domain: str) -> list[tuple[ObjectKey, Entry]]:
        """Returns the routes of a virtual host in the order in which they are tried, each with its object."""
        return [(each[3], self.entry(place, each)) for each in self.ranked(place, domain)]

    def ranked(self, place: Place, domain: str) -> list[Ranked]:
        """Returns the same, of each what is known without asking for its policies."""
        return [(at, piece.rank, piece, key) for at, (piece, _, _), key in self._ranked((place, domain))]

    def entry(self, place: Place, ranked: Ranked) -> Entry:
        """Returns one of `ranked` with the policies that are in force on it."""
        _, rank, piece, key = ranked
        return Entry(rank, piece.route(self._policies.merged(place, key).of(piece.rule.name).policies))

    def targets(self, key: ObjectKey) -> Iterable[tuple[str, list[ir.Route]]]:
        """Yields the exact domains of a Gateway, each with its routes in the order of precedence."""
        for listener in self._attachments.judged.get(key) or ():
            place = Place(key, listener.id)
            serves = listener.serves and PROTOCOLS[listener.protocol].http
            for domain in sorted(self._attachments.domains.get(place)) if serves else ():
                if not domain.startswith("*"):
                    yield domain, [entry.route for _, entry in self.routes(place, domain)]

    def _compute_own_overlays(self, key: tuple[Place, ObjectKey]) -> OwnOverlays:
        merged = self._policies.merged(*key)
        rules = {name: overlays.overlay(each.policies) for name, each in (merged.rules or {}).items()}
        origins = dict.fromkeys(origin for each in merged.all() for origin in each.policies.origins)
        return OwnOverlays(overlays.overlay(merged.default.policies), MappingProxyType(rules), tuple(origins))

    def _compute_host(self, key: tuple[Place, str]) -> Part:
        """Assembles a virtual host; routes of less specific hostnames come after those of more specific ones."""
        place, domain = key
        inherited = self._policies.inherited.get(place).default.policies.origins
        stages = self._stages(place, domain)
        if stages:
            trees = [self._tree.get((place, pattern)) for pattern in stages]
            origins = Origins([Origins(StageOrigins(stage)) for stage in stages.values()])
            body = routes.virtual_host_of_parts(domain, [part for each in trees for part in each.parts])
            # What is around the content is a part of it: another build may put it there in another way.
            around = routes.virtual_host_of_parts(domain, [tree.path_map(()), tree.path_map(())])
            return Part(_digest(around, *(each.digest for each in trees)), body, Origins([origins, inherited]))
        placed = [each for _, each, _ in self._ranked(key)]
        origins = tuple(dict.fromkeys(origin for each in placed for origin in (*each.origins, *inherited)))
        if len(placed) < TREE_FROM or not tree.suits(each.piece.match for each in placed):
            body = routes.virtual_host_of_list(domain, [each.piece.listed(each.overlay) for each in placed])
            return _part(routes.part(body), origins)
        by_distance: dict[int, list[tree.Branch]] = {}
        for distance, each, _ in self._ranked(key):
            by_distance.setdefault(distance, []).append(each.piece.branch(each.overlay))
        return _part(routes.part(routes.virtual_host_of_tree(domain, list(by_distance.values()))), origins)

    def _stages(self, place: Place, domain: str) -> Mapping[str, Stage]:
        """Returns the hostnames that cover a domain, each with its routes; none where they are no tree.

        Each is a tree of its own, which all domains that it covers share. A route under several of them counts for the
        most specific alone: then the host is put together by itself.
        """
        found = {each: self._attachments.hosted.get((place, each)) for each in hosts.candidates(domain)}
        members = [each for each in found.values() if each]
        if sum(map(len, members)) < TREE_FROM or not all(a.isdisjoint(b) for a, b in combinations(members, 2)):
            return {}
        stages = {pattern: self._stage.get((place, pattern)) for pattern, each in found.items() if each}
        fits = sum(each.count for each in stages.values()) >= TREE_FROM and not any(s.unfit for s in stages.values())
        return stages if fits else {}

    def _compute_laid(self, key: tuple[Place, ObjectKey]) -> tuple[Placed, ...]:
        """Returns the routes of an object at a place, with what policies lay over them there."""
        place, route = key
        listener = self._attachments.listener_of(place)
        if listener is None or route in self._attachments.rejected.get(place):
            return ()
        own = self._own(place, route)
        return self._placed(place, route, Surface(listener.port, listener.protocol == "HTTPS"), own)

    def _placed(self, place: Place, route: ObjectKey, surface: Surface, own: OwnOverlays | None) -> tuple[Placed, ...]:
        pieces = self._pieces.get(route, surface)
        if own is None:
            shared = self._overlay.get(place)
            return tuple(Placed(piece, shared, (piece.origin,)) for piece in pieces)
        return tuple(Placed(piece, own.of(piece.rule.name), (piece.origin, *own.origins)) for piece in pieces)

    def _own(self, place: Place, route: ObjectKey) -> OwnOverlays | None:
        return self._own_overlays.get((place, route)) if self._policies.has_own(route) else None

    def _ranked(self, key: tuple[Place, str]) -> list[tuple[int, Placed, ObjectKey]]:
        """Returns the routes of a host in the order of precedence."""
        place, domain = key
        listener = self._attachments.listener_of(place)
        if listener is None:
            return []
        surface = Surface(listener.port, listener.protocol == "HTTPS")
        seen: set[ObjectKey] = set(self._attachments.rejected.get(place))
        ranked: list[tuple[int, Placed, ObjectKey]] = []
        for distance, pattern in enumerate(hosts.candidates(domain)):
            members = self._attachments.hosted.get((place, pattern)) - seen
            seen |= members
            for route in members:
                placed = self._placed(place, route, surface, self._own(place, route))
                ranked += [(distance, each, route) for each in placed]
        ranked.sort(key=lambda each: (each[0], each[1].piece.rank))
        return ranked

    def _compute_shard(self, key: Shard) -> Part:
        found = [
            self._misdirected.get(domain) if place is None else self._host.get((place, domain))
            for domain, place in self._domains.get(key)
        ]
        return _joined(b"", found)

    def _compute_route_config(self, key: Configuration) -> Resource:
        """Joins what is there already; the version comes from the digests of the parts, which name the same content."""
        shards = range(SHARDS) if self._domains.sharded(key) else (None,)
        found = _joined(routes.head(key[1]), [self._shard.get(Shard(key, number)) for number in shards])
        return Resource(xds.ROUTE, key[1], found.body, found.digest[:8].hex(), found.origins)


def _part(body: bytes, origins: tuple[str, ...]) -> Part:
    return Part(_digest(body), body, origins)


def _joined(head: bytes, parts: list[Part]) -> Part:
    """Puts parts together behind a head."""
    digest = _digest(head, *[part.digest for part in parts])
    return Part(digest, b"".join([head, *[part.body for part in parts]]), Origins([part.origins for part in parts]))


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=_DIGEST_BYTES).digest()
