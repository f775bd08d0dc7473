"""Routes of requests apart from where they stand: each ranked and encoded once, whatever policies are laid over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import precedence
from controlplane.compile.compiled import CompiledRoute
from controlplane.graph import Derived, Graph
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects
from controlplane.translate import routes, tree
from controlplane.translate.overlays import Base, Overlay, base


class Surface(NamedTuple):
    """What of a listener the bytes of a route depend on."""

    port: int
    https: bool


@dataclass(slots=True)
class Piece:
    """One match of one rule, without its policies.

    What it is encoded to is kept, with the overlay that it was made for: the same overlay is asked for until a policy
    changes, and an overlay is one object for all routes that share it.
    """

    rank: precedence.Rank
    title: str
    match: ir.Match
    rule: ir.Rule
    origin: str
    scope: str
    surface: Surface
    _base: Base | None = field(default=None, init=False, repr=False, compare=False)
    _conditions: bytes | None = field(default=None, init=False, repr=False, compare=False)
    _listed: tuple[Overlay, bytes] | None = field(default=None, init=False, repr=False, compare=False)
    _branch: tuple[Overlay, tree.Branch] | None = field(default=None, init=False, repr=False, compare=False)

    def listed(self, overlay: Overlay) -> bytes:
        """Returns the route as one of a virtual host's list."""
        kept = self._listed
        if kept is None or kept[0] is not overlay:
            kept = self._listed = overlay, routes.listed(self.whole(overlay))
        return kept[1]

    def branch(self, overlay: Overlay) -> tree.Branch:
        """Returns the route as it stands in a matcher tree."""
        kept = self._branch
        if kept is None or kept[0] is not overlay:
            if self._conditions is None:
                self._conditions = tree.conditions(self.match)
            by_path = overlay.over(self._encode(ir.Match(self.match.path)), scope=self.scope)
            kept = self._branch = overlay, tree.Branch(self.match, self._conditions, tree.on_match(by_path))
        return kept[1]

    def whole(self, overlay: Overlay) -> bytes:
        """Returns the encoded route."""
        return overlay.over(self._encode(self.match), scope=self.scope)

    def route(self, policies: ir.Policies) -> ir.Route:
        """Returns the route as data, with the policies that are in force on it."""
        return ir.Route(self.title, self.match, self.rule, policies, self.origin)

    def _encode(self, match: ir.Match) -> Base:
        if match != self.match:  # Rare: only the same path with further conditions, of a tree.
            return base(self.title, match, self.rule, port=self.surface.port, https=self.surface.https)
        if self._base is None:
            self._base = base(self.title, match, self.rule, port=self.surface.port, https=self.surface.https)
        return self._base


class Pieces:
    """The pieces of each route, by what of a listener they depend on."""

    def __init__(self, graph: Graph, objects: Objects, attachments: Attachments) -> None:
        self._objects = objects
        self._attachments = attachments
        self._pieces: Derived[tuple[ObjectKey, Surface], tuple[Piece, ...]] = graph.derive("pieces", self._compute)

    def get(self, route: ObjectKey, surface: Surface) -> tuple[Piece, ...]:
        """Returns the pieces of a route; none of one that is not in force."""
        return self._pieces.get((route, surface))

    def _compute(self, key: tuple[ObjectKey, Surface]) -> tuple[Piece, ...]:
        route_key, surface = key
        route = self._objects.get(route_key)
        if route is None:
            return ()
        compiled: CompiledRoute = self._attachments.compiled.get(route_key)
        created, name = route.metadata.creation_timestamp, f"{route_key.namespace}/{route_key.name}"
        scope, origin = f"{route_key.kind}/{name}", str(route_key)
        return tuple(
            Piece(
                rank=precedence.rank(match, created=created, route=name, rule_index=index, match_index=position),
                title=f"{scope}/{rule.name}",
                match=match,
                rule=rule,
                origin=origin,
                scope=scope,
                surface=surface,
            )
            for index, rule in enumerate(compiled.rules)
            for position, match in enumerate(rule.matches)
        )
