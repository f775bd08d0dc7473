"""The graph as whoever builds a pipeline sees it: makes collections, and brings them up to date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from controlplane.graph.folds import Change, Fold
from controlplane.graph.indexes import Emitted, Index, Posting, Postings
from controlplane.graph.nodes import Nodes
from controlplane.graph.roots import Root
from controlplane.graph.tables import Derived, Table

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
G = TypeVar("G", bound=Hashable)
M = TypeVar("M", bound=Hashable)
A = TypeVar("A")


class Graph:
    """Owns the values of one pipeline. Single-threaded."""

    def __init__(self) -> None:
        self._nodes = Nodes()
        self._postings: list[Postings[Any]] = []
        self._roots: list[Root[Any, Any]] = []

    @property
    def recomputed(self) -> Counter[str]:
        """How often values of each collection were computed, since it was last cleared."""
        return self._nodes.recomputed

    def table(self, name: str) -> Table[Any, Any]:
        """Makes an input collection."""
        return Table(self._nodes, name)

    def derive(self, name: str, compute: Callable[[K], V]) -> Derived[K, V]:
        """Makes a derived collection; `compute` must be a pure function of its key and of what it reads."""
        return Derived(self._nodes, name, compute)

    def fold(
        self,
        name: str,
        members: Callable[[K], frozenset[M]],
        values: Derived[G, V],
        key: Callable[[K, M], G],
        update: Callable[[K, A | None, Mapping[M, Change[V]]], A],
    ) -> Fold[K, M, V, A]:
        """Makes a collection of values that are made from the `values` of many members, each under its `key`.

        `update` takes the value before (None: there is none yet, and all members are new) and what is new. It must
        return another object, and an equal one whichever way the members came to be what they are.
        """
        return Fold(self._nodes, name, members, lambda fold, member: values.node(key(fold, member)), update)

    def index(self, name: str) -> Index[Any, Any]:
        """Makes an index, empty unless rows are posted to it."""
        return Index(self._nodes, name)

    def post(self, name: str, source: Table[K, Any], emit: Callable[[K], Iterable[Posting]]) -> None:
        """Puts the rows of `source` into indexes: each row emits postings, (index, key, member).

        Indexes are brought up to date in the order of posts, so that `emit` may read those of earlier ones.
        """
        said: Derived[K, Emitted] = Derived(self._nodes, name, lambda key: tuple(emit(key)))
        self._postings.append(Postings(self._nodes, name, source, said, lambda _, postings: postings))

    def post_values(
        self, name: str, source: Table[K, Any], values: Derived[K, V], emit: Callable[[K, V], Iterable[Posting]]
    ) -> None:
        """Puts the rows of `source` into indexes by what their `values` alone say. See `post`."""
        self._postings.append(Postings(self._nodes, name, source, values, lambda key, value: tuple(emit(key, value))))

    def group(self, name: str, source: Table[K, Any], emit: Callable[[K], Iterable[tuple[G, M]]]) -> Index[G, M]:
        """Makes an index over the rows of `source`: each row emits pairs of (key, member). See `post`."""
        index: Index[G, M] = Index(self._nodes, name)
        self.post(name, source, lambda row: [(index, key, member) for key, member in emit(row)])
        return index

    def root(self, keys: Callable[[], Iterable[K]] | Table[K, Any], values: Derived[K, V]) -> Root[K, V]:
        """Asks for `values` of all `keys`, or of all rows of a table, to be kept up to date by `stabilise`."""
        made = Root(self._nodes, keys, values)
        self._roots.append(made)
        return made

    def stabilise(self) -> None:
        """Recomputes what is stale and asked for; afterwards each root's `take_changes` says what is new."""
        for postings in self._postings:
            postings.refresh()
        for root in self._roots:
            root.refresh()
        self._nodes.collect()
