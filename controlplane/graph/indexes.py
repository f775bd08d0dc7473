"""Tables inverted: each row says under which keys of which indexes it wants to be found."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

from controlplane.graph.nodes import DIRTY, Node, Nodes
from controlplane.graph.tables import Derived, Table

K = TypeVar("K", bound=Hashable)
G = TypeVar("G", bound=Hashable)
M = TypeVar("M", bound=Hashable)
V = TypeVar("V")


class Index(Generic[G, M]):
    """Buckets of members by key; a bucket holds its members without repeats, in no particular order."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self.name = name
        self._graph = nodes
        self._counts: dict[G, dict[M, int]] = {}
        self._buckets: dict[G, Node] = {}
        self._touched: dict[G, None] = {}

    def get(self, key: G) -> frozenset[M]:
        """Reads the members under a key (recorded); empty where there are none."""
        node = self._buckets.get(key)
        if node is None:
            node = self._buckets[key] = Node(self, key, frozenset(self._counts.get(key, ())))
        return self._graph.read(node)

    def count(self, key: G, member: M, by: int) -> None:
        """Counts one row more, or less, that puts a member under a key."""
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = {}
        total = counts.get(member, 0) + by
        if total:
            counts[member] = total
        else:
            del counts[member]
        self._touched[key] = None

    def publish(self) -> None:
        """Tells readers what has been counted since the last time."""
        touched, self._touched = self._touched, {}
        for key in touched:
            counts = self._counts.get(key)
            if not counts:
                self._counts.pop(key, None)
            node = self._buckets.get(key)
            if node is None:
                continue
            members = frozenset(counts or ())
            if members != node.value:
                self._graph.set_leaf(node, members)

    def compute(self, key: G) -> frozenset[M]:
        return frozenset(self._counts.get(key, ()))

    def forget(self, node: Node) -> None:
        self._buckets.pop(node.key, None)


Posting = tuple[Index[Any, Any], Hashable, Hashable]
"""In which index, under which key, and who."""
Emitted = tuple[Posting, ...]


class Postings(Generic[K]):
    """What the rows of a table say about where they want to be found, by a value of each; see `Graph.post`."""

    def __init__(
        self, nodes: Nodes, name: str, source: Table[K, Any], values: Derived[K, V], emit: Callable[[K, V], Emitted]
    ) -> None:
        self.name = name
        self._graph = nodes
        self._source = source
        self._values: Derived[K, Any] = values
        self._emit: Callable[[K, Any], Emitted] = emit
        self._emitted: dict[K, Emitted] = {}
        self._rows: dict[K, None] = {}
        self._reader = Node(self, name, None, DIRTY)  # stays so: `refresh` looks at what is pending
        source.watch(self)

    def note_row(self, key: K) -> None:
        """Takes note of a row that has come or gone."""
        self._rows[key] = None

    def refresh(self) -> None:
        """Looks at the rows that may say something new, and tells the readers of the buckets."""
        rows, self._rows = self._rows, {}
        stale, self._reader.pending = self._reader.pending, None
        for node in stale or ():
            rows.setdefault(node.key)
        touched: dict[Index[Any, Any], None] = {}
        try:
            for key in rows:
                before = self._emitted.get(key, ())
                after = self._current(key)
                if after is before or after == before:
                    continue
                for (index, group, member), by in _difference(before, after):
                    index.count(group, member, by)
                    touched[index] = None
                if after:
                    self._emitted[key] = after
                else:
                    self._emitted.pop(key, None)
        except BaseException:
            self._rows |= rows  # Looked at again, the next time; what has been counted is not counted twice.
            raise
        finally:
            for index in touched:
                index.publish()

    def compute(self, key: None) -> None:
        raise NotImplementedError("postings are not read")

    def forget(self, node: Node) -> None:
        raise NotImplementedError("postings are not read")

    def _current(self, key: K) -> Emitted:
        node = self._values.node(key)
        if not self._source.has(key):
            self._graph.unlink(node, self._reader)
            return ()
        value = self._graph.read(node)
        node.readers[self._reader] = 0
        return self._emit(key, value)


def _difference(before: Emitted, after: Emitted) -> Iterable[tuple[Posting, int]]:
    """Returns how much more, or less, there is of each; most of what a row says stays when it changes."""
    if not before:
        return [(each, 1) for each in after]
    counts = dict.fromkeys(before, 0)
    for each in before:
        counts[each] -= 1
    for each in after:
        counts[each] = counts.get(each, 0) + 1
    return [(each, by) for each, by in counts.items() if by]
