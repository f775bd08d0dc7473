"""Routes with their references resolved, wherever they are attached."""

from __future__ import annotations

from controlplane.api.meta import ObjectKey
from controlplane.compile import routes
from controlplane.compile.compiled import CompiledRoute
from controlplane.graph import Derived, Graph
from controlplane.pipeline.objects import Objects

_NOTHING = CompiledRoute()


class CompiledRoutes:
    """What routes of any kind compile to: the version in force, and the newest."""

    def __init__(self, graph: Graph, objects: Objects) -> None:
        self._objects = objects
        self._newest: Derived[ObjectKey, CompiledRoute] = graph.derive("compiled route", self._compute_newest)
        # Apart, since there are few: nearly every route is in force as it is.
        self._stands_in: Derived[ObjectKey, CompiledRoute] = graph.derive(
            "compiled stand-in", lambda key: self._compile(self._objects.get(key))
        )

    def get(self, key: ObjectKey) -> CompiledRoute:
        """Returns what the version of a route that is in force compiles to."""
        standing = self._objects.standing(key)
        if standing.object is None:
            return _NOTHING
        return self._newest.get(key) if standing.newest else self._stands_in.get(key)

    def newest(self, key: ObjectKey) -> CompiledRoute:
        """Returns what the newest version of a route compiles to."""
        return self._newest.get(key)

    def _compute_newest(self, key: ObjectKey) -> CompiledRoute:
        admitted = self._objects.candidate(key)
        return self._compile(admitted.object) if admitted is not None and admitted.good else _NOTHING

    def _compile(self, route: object) -> CompiledRoute:
        return routes.compile_route(self._objects, route) if route is not None else _NOTHING
