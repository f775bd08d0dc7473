"""What is asked for from outside, and what changed in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from controlplane.graph.nodes import DIRTY, Node, Nodes
from controlplane.graph.tables import Derived, Table

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Root(Generic[K, V]):
    """Values that are kept up to date, and what changed in them since it was last asked.

    They are of `keys`, or of all rows of a table: then a row that comes or goes costs the same among many.
    """

    def __init__(self, nodes: Nodes, keys: Callable[[], Iterable[K]] | Table[K, Any], values: Derived[K, V]) -> None:
        self.name = f"{values.name}.root"
        self._graph = nodes
        self._values = values
        self._reader = Node(self, None, None, DIRTY)
        self._wanted: frozenset[K] = frozenset()
        self._rows: dict[K, None] = {}
        self._current: dict[K, V] = {}
        self._changes: dict[K, V | None] = {}
        self._table: Table[K, Any] | None = None
        self._keys: Derived[None, frozenset[K]] | None = None
        if isinstance(keys, Table):
            self._table = cast("Table[K, Any]", keys)
            self._table.watch(self)
        else:
            self._keys = Derived(nodes, f"{values.name}.keys", lambda _, made=keys: frozenset(made()))

    def refresh(self) -> None:
        """Brings up to date what is stale of what is asked for."""
        stale, self._reader.pending = self._reader.pending or {}, None
        rows, self._rows = self._rows, {}
        try:
            if self._keys is not None:
                self._follow(self._keys.node(None))
            for key in rows:
                if self._table is not None and self._table.has(key):
                    self._take(key)
                elif key in self._current:
                    self._drop(key)
            for node in stale:
                if node.owner is self._values and node.key in self._current:
                    self._take(node.key)
        except BaseException:
            self._reader.pending = (self._reader.pending or {}) | stale  # Looked at again, the next time.
            self._rows |= rows
            raise

    def note_row(self, key: K) -> None:
        """Takes note of a row that has come or gone."""
        self._rows[key] = None

    def take_changes(self) -> Mapping[K, V | None]:
        """Returns what changed since the last call: key → new value, or None for what is gone."""
        changes, self._changes = self._changes, {}
        return changes

    def current(self) -> Mapping[K, V]:
        """Returns all values as of the last `stabilise`."""
        return self._current

    def compute(self, key: None) -> None:
        raise NotImplementedError("a root is not read")

    def forget(self, node: Node) -> None:
        raise NotImplementedError("a root is not read")

    def _follow(self, keys: Node) -> None:
        """Takes and drops what has come and gone of the keys."""
        wanted: frozenset[K] = self._graph.read(keys)
        keys.readers[self._reader] = 0
        if wanted is self._wanted:
            return
        for key in self._current.keys() - wanted:
            self._drop(key)
        for key in wanted - self._current.keys():
            self._take(key)
        self._wanted = wanted

    def _take(self, key: K) -> None:
        node = self._values.node(key)
        value: V = self._graph.read(node)
        node.readers[self._reader] = 0
        if key not in self._current or self._current[key] is not value:
            self._current[key] = value
            self._changes[key] = value

    def _drop(self, key: K) -> None:
        self._graph.unlink(self._values.node(key), self._reader)
        del self._current[key]
        self._changes[key] = None
