"""Inputs, and functions of them: the collections that are read by key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from controlplane.graph.nodes import DIRTY, UNSET, Node, Nodes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)


class Watcher(Protocol[K_contra]):
    """Who hears of rows that come and go."""

    def note_row(self, key: K_contra) -> None:
        """Takes note of a row."""
        ...


class Table(Generic[K, V]):
    """An input collection: rows by key, set from outside between two `stabilise` calls."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self.name = name
        self._graph = nodes
        self._rows: dict[K, V] = {}
        self._nodes: dict[K, Node] = {}
        self._keys = Node(self, None, None)
        self._watchers: list[Watcher[K]] = []

    def set(self, key: K, value: V) -> bool:
        """Sets a row; returns whether that changed anything."""
        old = self._rows.get(key, UNSET)
        if old is not UNSET and (old is value or old == value):
            return False
        self._rows[key] = value
        self._moved(key, value, membership=old is UNSET)
        return True

    def delete(self, key: K) -> bool:
        """Removes a row; returns whether it was there."""
        if self._rows.pop(key, UNSET) is UNSET:
            return False
        self._moved(key, None, membership=True)
        return True

    def get(self, key: K) -> V | None:
        """Reads a row (recorded); None where there is none."""
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(self, key, self._rows.get(key))
        return self._graph.read(node)

    def all_keys(self) -> tuple[K, ...]:
        """Reads all keys (recorded as depending on the membership alone)."""
        self._graph.read(self._keys)
        return tuple(self._rows)

    def peek(self, key: K) -> V | None:
        """Returns a row without recording the read: for the edges."""
        return self._rows.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterates over all rows without recording the read: for the edges."""
        return iter(self._rows.items())

    def __len__(self) -> int:
        return len(self._rows)

    def watch(self, watcher: Watcher[K]) -> None:
        """Tells `watcher` of all rows, and of each that comes or goes from now on."""
        self._watchers.append(watcher)
        for key in self._rows:
            watcher.note_row(key)

    def has(self, key: K) -> bool:
        """Says whether a row is there, unrecorded."""
        return key in self._rows

    def compute(self, key: K) -> V | None:
        return self._rows.get(key)

    def forget(self, node: Node) -> None:
        if node is not self._keys:
            self._nodes.pop(node.key, None)

    def _moved(self, key: K, value: V | None, *, membership: bool) -> None:
        node = self._nodes.get(key)
        if node is not None:
            if node.readers:
                self._graph.set_leaf(node, value)
            else:
                del self._nodes[key]
        if membership:
            self._graph.set_leaf(self._keys, None)
            for watcher in self._watchers:
                watcher.note_row(key)


class Derived(Generic[K, V]):
    """A keyed function, memoised; see `Graph.derive`."""

    def __init__(self, nodes: Nodes, name: str, compute: Callable[[K], V]) -> None:
        self.name = name
        self.compute = compute
        self._graph = nodes
        self._nodes: dict[K, Node] = {}

    def get(self, key: K) -> V:
        """Reads the value for a key (recorded), computing it if it is stale or new."""
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(self, key, UNSET, DIRTY)
        graph = self._graph
        if node.state:
            graph.refresh(node)
        # As `Nodes.read` does it; a call less, where most of the reads are.
        reader = graph.current
        if reader is None:
            if not node.readers:
                graph.orphan(node)
        elif node.readers.get(reader) != reader.turn:
            node.readers[reader] = reader.turn
            reader.deps.append(node)  # type: ignore[attr-defined]
        return node.value

    def node(self, key: K) -> Node:
        """Returns the node of a key, to be read by hand."""
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(self, key, UNSET, DIRTY)
        return node

    def forget(self, node: Node) -> None:
        self._nodes.pop(node.key, None)

    def __len__(self) -> int:
        return len(self._nodes)
