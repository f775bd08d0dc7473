"""What is asked for from outside, and what changed in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from controlplane.graph.nodes import DIRTY, Node, Nodes
from controlplane.graph.tables import Derived

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Root(Generic[K, V]):
    """Values that are kept up to date, and what changed in them since it was last asked."""

    def __init__(self, nodes: Nodes, keys: Callable[[], Iterable[K]], values: Derived[K, V]) -> None:
        self.name = f"{values.name}.root"
        self._graph = nodes
        self._keys: Derived[None, frozenset[K]] = Derived(nodes, f"{values.name}.keys", lambda _: frozenset(keys()))
        self._values = values
        self._reader = Node(self, None, None, DIRTY)
        self._wanted: frozenset[K] = frozenset()
        self._current: dict[K, V] = {}
        self._changes: dict[K, V | None] = {}

    def refresh(self) -> None:
        """Brings up to date what is stale of what is asked for."""
        keys_node = self._keys.node(None)
        wanted: frozenset[K] = self._graph.read(keys_node)
        keys_node.readers[self._reader] = 0
        stale, self._reader.pending = self._reader.pending or {}, None
        try:
            if wanted is not self._wanted:
                for key in self._current.keys() - wanted:
                    self._drop(key)
                for key in wanted - self._current.keys():
                    self._take(key)
                self._wanted = wanted
            for node in stale:
                if node.owner is self._values and node.key in wanted:
                    self._take(node.key)
        except BaseException:
            self._reader.pending = (self._reader.pending or {}) | stale  # Looked at again, the next time.
            raise

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
