"""Derived collections: keyed functions whose reads are recorded; a change recomputes exactly what depended on it.

Inputs are `Table`s. A `Derived` is a function of a key that may read tables, groups and other derived values. A
`Group` inverts a table: each row says under which groups it wants to be found. `Graph.stabilise` brings everything
that a `Root` asks for up to date and says what changed; between two calls nothing is computed.

How staleness travels: a changed leaf makes its readers *dirty*; what reads those is only to be *checked*, and remembers
which of its inputs may have moved. A checked node whose inputs turn out equal is not recomputed (early cut-off).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
G = TypeVar("G", bound=Hashable)
M = TypeVar("M", bound=Hashable)


class _State(IntEnum):
    CLEAN = 0
    CHECK = 1  # some of `pending` may have changed
    DIRTY = 2  # an input changed: must be recomputed
    COMPUTING = 3


# Members of an enum are slow to look up, and these are compared for every read.
_CLEAN: Final = _State.CLEAN
_CHECK: Final = _State.CHECK
_DIRTY: Final = _State.DIRTY
_COMPUTING: Final = _State.COMPUTING


class _Unset:
    def __repr__(self) -> str:
        return "unset"


_UNSET: Final = _Unset()


class CycleError(Exception):
    """A derived value was read while it was being computed."""


class _Owner(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def compute(self) -> Callable[[Any], Any]: ...
    def forget(self, node: _Node) -> None: ...


class _Node:
    """A value in the graph: a derived value, or a leaf (a table's row, a group's bucket), which is never stale."""

    __slots__ = ("deps", "key", "owner", "pending", "readers", "state", "value")

    def __init__(self, owner: _Owner, key: Any, value: Any, state: _State = _CLEAN) -> None:
        self.owner = owner
        self.key = key
        self.value = value
        self.state = state
        self.deps: dict[_Node, None] = {}
        self.readers: dict[_Node, None] = {}
        self.pending: dict[_Node, None] = {}


class Graph:
    """Owns the nodes of one pipeline. Single-threaded."""

    def __init__(self) -> None:
        self._active: list[_Node] = []
        self._groups: list[Group[Any, Any, Any]] = []
        self._roots: list[Root[Any, Any]] = []
        self._orphans: dict[_Node, None] = {}
        self.recomputed: Counter[str] = Counter()

    def table(self, name: str) -> Table[Any, Any]:
        """Makes an input collection."""
        return Table(self, name)

    def derive(self, name: str, compute: Callable[[K], V]) -> Derived[K, V]:
        """Makes a derived collection; `compute` must be a pure function of its key and of what it reads."""
        return Derived(self, name, compute)

    def group(self, name: str, source: Table[K, Any], emit: Callable[[K], Iterable[tuple[G, M]]]) -> Group[K, G, M]:
        """Makes an index over the rows of `source`: each row emits pairs of (group, member).

        Groups are brought up to date in the order in which they were made, so `emit` may read earlier groups.
        """
        made: Group[K, G, M] = Group(self, name, source, emit)
        self._groups.append(made)
        return made

    def root(self, keys: Callable[[], Iterable[K]], values: Derived[K, V]) -> Root[K, V]:
        """Asks for `values` of all `keys` to be kept up to date by `stabilise`."""
        made = Root(self, keys, values)
        self._roots.append(made)
        return made

    def stabilise(self) -> None:
        """Recomputes what is stale and asked for; afterwards each root's `take_changes` says what is new."""
        for group in self._groups:
            group.refresh()
        for root in self._roots:
            root.refresh()
        self._collect()

    # -- what tables, groups and derived collections use --

    def read(self, node: _Node) -> Any:
        if node.state is not _CLEAN:
            self._refresh(node)
        active = self._active
        if active:
            reader = active[-1]
            deps = reader.deps
            if node not in deps:
                deps[node] = None
                node.readers[reader] = None
        return node.value

    def set_leaf(self, node: _Node, value: Any) -> None:
        node.value = value
        self._changed(node)

    def orphan(self, node: _Node) -> None:
        self._orphans[node] = None

    def _changed(self, node: _Node) -> None:
        for reader in node.readers:
            fresh = reader.state is _CLEAN
            if reader.state is not _COMPUTING:
                reader.state = _DIRTY
            reader.pending[node] = None
            if fresh:
                self._suspect_readers(reader)

    def _suspect_readers(self, node: _Node) -> None:
        work = [node]
        while work:
            stale = work.pop()
            for reader in stale.readers:
                reader.pending[stale] = None
                if reader.state is _CLEAN:
                    reader.state = _CHECK
                    work.append(reader)

    def _refresh(self, node: _Node) -> None:
        if node.state is _COMPUTING:
            raise CycleError(f"{node.owner.name}({node.key}) depends on itself")
        if node.state is _CHECK:
            pending = node.pending
            while pending and node.state is _CHECK:
                dep, _ = pending.popitem()
                if dep.state is not _CLEAN:
                    try:
                        self._refresh(dep)
                    except BaseException:
                        pending[dep] = None  # Still to be looked at, the next time.
                        raise
            if node.state is _CHECK:
                node.state = _CLEAN
        if node.state is _DIRTY:
            self._recompute(node)

    def _recompute(self, node: _Node) -> None:
        owner = node.owner
        before, node.deps = node.deps, {}
        node.pending.clear()
        node.state = _COMPUTING
        self._active.append(node)
        try:
            value = owner.compute(node.key)
        except BaseException:
            node.deps = {**before, **node.deps}
            node.state = _DIRTY
            raise
        finally:
            self._active.pop()
        node.state = _CLEAN
        self.recomputed[owner.name] += 1
        for dep in before:
            if dep not in node.deps:
                dep.readers.pop(node, None)
                if not dep.readers:
                    self._orphans[dep] = None
        if value is not node.value and value != node.value:
            node.value = value
            self._changed(node)

    def _collect(self) -> None:
        """Forgets values that nothing reads any more."""
        while self._orphans:
            node, _ = self._orphans.popitem()
            if node.readers:
                continue
            node.owner.forget(node)
            for dep in node.deps:
                dep.readers.pop(node, None)
                if not dep.readers:
                    self._orphans[dep] = None
            node.deps = {}


class Table(Generic[K, V]):
    """An input collection: rows by key, set from outside between two `stabilise` calls."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.name = name
        self._graph = graph
        self._rows: dict[K, V] = {}
        self._nodes: dict[K, _Node] = {}
        self._keys = _Node(self, None, None)
        self._watchers: list[Group[K, Any, Any]] = []

    def set(self, key: K, value: V) -> bool:
        """Sets a row; returns whether that changed anything."""
        old = self._rows.get(key, _UNSET)
        if old is not _UNSET and (old is value or old == value):
            return False
        self._rows[key] = value
        self._moved(key, value, membership=old is _UNSET)
        return True

    def delete(self, key: K) -> bool:
        """Removes a row; returns whether it was there."""
        if self._rows.pop(key, _UNSET) is _UNSET:
            return False
        self._moved(key, None, membership=True)
        return True

    def get(self, key: K) -> V | None:
        """Reads a row (recorded); None where there is none."""
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node(self, key, self._rows.get(key))
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

    def attach(self, group: Group[K, Any, Any]) -> None:
        self._watchers.append(group)
        for key in self._rows:
            group.note_row(key)

    def _moved(self, key: K, value: V | None, *, membership: bool) -> None:
        node = self._nodes.get(key)
        if node is not None:
            if node.readers:
                self._graph.set_leaf(node, value)
            else:
                del self._nodes[key]
        if membership:
            self._graph.set_leaf(self._keys, None)
            for group in self._watchers:
                group.note_row(key)

    def has(self, key: K) -> bool:
        """Says whether a row is there, unrecorded."""
        return key in self._rows

    def compute(self, key: K) -> V | None:
        return self._rows.get(key)

    def forget(self, node: _Node) -> None:
        if node is not self._keys:
            self._nodes.pop(node.key, None)


class Derived(Generic[K, V]):
    """A keyed function, memoised; see `Graph.derive`."""

    def __init__(self, graph: Graph, name: str, compute: Callable[[K], V]) -> None:
        self.name = name
        self.compute = compute
        self._graph = graph
        self._nodes: dict[K, _Node] = {}

    def get(self, key: K) -> V:
        """Reads the value for a key (recorded), computing it if it is stale or new."""
        node = self._nodes.get(key)
        if node is None:
            node = self.node(key)
        value = self._graph.read(node)
        if not node.readers:
            self._graph.orphan(node)
        return value

    def node(self, key: K) -> _Node:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node(self, key, _UNSET, _DIRTY)
        return node

    def forget(self, node: _Node) -> None:
        self._nodes.pop(node.key, None)

    def __len__(self) -> int:
        return len(self._nodes)


class Group(Generic[K, G, M]):
    """An index; see `Graph.group`. A bucket holds its members without repeats, in no particular order."""

    def __init__(
        self, graph: Graph, name: str, source: Table[K, Any], emit: Callable[[K], Iterable[tuple[G, M]]]
    ) -> None:
        self.name = name
        self._graph = graph
        self._source = source
        self._emit: Derived[K, tuple[tuple[G, M], ...]] = Derived(graph, name, lambda key: tuple(emit(key)))
        self._counts: dict[G, dict[M, int]] = {}
        self._buckets: dict[G, _Node] = {}
        self._emitted: dict[K, tuple[tuple[G, M], ...]] = {}
        self._rows: dict[K, None] = {}
        self._reader = _Node(self, name, None, _DIRTY)  # stays so: `refresh` looks at what is pending
        source.attach(self)

    def get(self, key: G) -> frozenset[M]:
        """Reads the members of one group (recorded); empty where there are none."""
        node = self._buckets.get(key)
        if node is None:
            node = self._buckets[key] = _Node(self, key, frozenset(self._counts.get(key, ())))
        return self._graph.read(node)

    def note_row(self, key: K) -> None:
        self._rows[key] = None

    def refresh(self) -> None:
        touched: dict[G, None] = {}
        rows, self._rows = self._rows, {}
        stale = self._reader.pending
        self._reader.pending = {}
        for node in stale:
            rows.setdefault(node.key)
        try:
            for key in rows:
                before = self._emitted.get(key, ())
                after = self._current(key)
                if after is before or after == before:
                    continue
                self._count(before, -1, touched)
                self._count(after, +1, touched)
                if after:
                    self._emitted[key] = after
                else:
                    self._emitted.pop(key, None)
        except BaseException:
            self._rows |= rows  # Looked at again, the next time; what has been counted is not counted twice.
            raise
        finally:
            for group in touched:
                self._publish(group)

    def _current(self, key: K) -> tuple[tuple[G, M], ...]:
        node = self._emit.node(key)
        if not self._source.has(key):
            node.readers.clear()
            self._graph.orphan(node)
            return ()
        value: tuple[tuple[G, M], ...] = self._graph.read(node)
        node.readers[self._reader] = None
        return value

    def _count(self, pairs: Iterable[tuple[G, M]], by: int, touched: dict[G, None]) -> None:
        for group, member in pairs:
            counts = self._counts.setdefault(group, {})
            total = counts.get(member, 0) + by
            if total:
                counts[member] = total
            else:
                del counts[member]
            touched[group] = None

    def _publish(self, group: G) -> None:
        counts = self._counts.get(group)
        if not counts:
            self._counts.pop(group, None)
        node = self._buckets.get(group)
        if node is None:
            return
        members = frozenset(counts or ())
        if members != node.value:
            self._graph.set_leaf(node, members)

    def compute(self, key: G) -> frozenset[M]:
        return frozenset(self._counts.get(key, ()))

    def forget(self, node: _Node) -> None:
        self._buckets.pop(node.key, None)


class Root(Generic[K, V]):
    """Values that are kept up to date, and what changed in them since it was last asked."""

    def __init__(self, graph: Graph, keys: Callable[[], Iterable[K]], values: Derived[K, V]) -> None:
        self.name = f"{values.name}.root"
        self._graph = graph
        self._keys: Derived[None, frozenset[K]] = Derived(graph, f"{values.name}.keys", lambda _: frozenset(keys()))
        self._values = values
        self._reader = _Node(self, None, None, _DIRTY)
        self._wanted: frozenset[K] = frozenset()
        self._current: dict[K, V] = {}
        self._changes: dict[K, V | None] = {}

    def refresh(self) -> None:
        keys_node = self._keys.node(None)
        wanted: frozenset[K] = self._graph.read(keys_node)
        keys_node.readers[self._reader] = None
        stale, self._reader.pending = self._reader.pending, {}
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
            self._reader.pending |= stale  # Looked at again, the next time.
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

    def forget(self, node: _Node) -> None:
        raise NotImplementedError("a root is not read")

    def _take(self, key: K) -> None:
        node = self._values.node(key)
        value: V = self._graph.read(node)
        node.readers[self._reader] = None
        if key not in self._current or self._current[key] is not value:
            self._current[key] = value
            self._changes[key] = value

    def _drop(self, key: K) -> None:
        node = self._values.node(key)
        node.readers.pop(self._reader, None)
        self._graph.orphan(node)
        del self._current[key]
        self._changes[key] = None
