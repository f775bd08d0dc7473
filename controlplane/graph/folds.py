"""Values that are made from many others, and that a change of one of these costs no more than that one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from controlplane.graph.nodes import CLEAN, COMPUTING, DIRTY, UNSET, Node, Nodes
from controlplane.graph.tables import Derived

K = TypeVar("K", bound=Hashable)
M = TypeVar("M", bound=Hashable)
V = TypeVar("V")
A = TypeVar("A")


class Change(NamedTuple, Generic[V]):
    """What a member was, and what it is; None where it was not there, or is no more."""

    before: V | None
    after: V | None


class Fold(Generic[K, M, V, A]):
    """A keyed value that is kept up to date by what is new of its members; see `Graph.fold`."""

    def __init__(
        self,
        nodes: Nodes,
        name: str,
        members: Callable[[K], frozenset[M]],
        value: Callable[[K, M], Node],
        update: Callable[[K, A | None, Mapping[M, Change[V]]], A],
    ) -> None:
        self.name = name
        self.value = value
        self.update = update
        self.members: Derived[K, frozenset[M]] = Derived(nodes, f"{name}.members", members)
        self._graph = nodes
        self._nodes: dict[K, _FoldNode] = {}

    def get(self, key: K) -> A:
        """Reads the value for a key (recorded), brought up to date."""
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _FoldNode(self, key)
        value: A = self._graph.read(node)
        if not node.readers:
            self._graph.orphan(node)
        return value

    def compute(self, key: K) -> A:
        raise NotImplementedError("a fold is updated")

    def forget(self, node: Node) -> None:
        self._nodes.pop(node.key, None)


class _FoldNode(Node):
    """`known` has what the value was made from; `linked` the nodes that are read, each with its member."""

    __slots__ = ("fold", "known", "linked", "wanted")

    def __init__(self, fold: Fold[Any, Any, Any, Any], key: Any) -> None:
        super().__init__(fold, key, UNSET, DIRTY)
        self.fold = fold
        self.wanted: frozenset[Any] = frozenset()
        self.known: dict[Any, Any] = {}
        self.linked: dict[Node, Any] = {}

    def recompute(self, nodes: Nodes) -> None:
        fold, stale = self.fold, self.pending or {}
        self.pending, self.state = None, COMPUTING
        outer, nodes.current = nodes.current, None
        try:
            changes = self._changes(nodes, fold, stale)
            before = None if self.value is UNSET else self.value
            value = fold.update(self.key, before, changes) if changes or before is None else before
        except BaseException:
            self._start_over(nodes)
            raise
        finally:
            nodes.current = outer
        self.state = CLEAN
        nodes.recomputed[fold.name] += 1
        self.take(value, nodes)

    def _changes(self, nodes: Nodes, fold: Fold[Any, Any, Any, Any], stale: Iterable[Node]) -> dict[Any, Change[Any]]:
        members = fold.members.node(self.key)
        wanted: frozenset[Any] = nodes.read(members)
        changes: dict[Any, Change[Any]] = {}
        if members in stale or members not in self.linked:
            self._link(members, None)
            for gone in self.wanted - wanted:
                node = fold.value(self.key, gone)
                self.linked.pop(node, None)
                nodes.unlink(node, self)
                changes[gone] = Change(self.known.pop(gone), None)
            for new in wanted - self.wanted:
                changes[new] = Change(None, self._take_in(nodes, fold.value(self.key, new), new))
            self.wanted = wanted
        for node in stale:
            member = self.linked.get(node)
            if member is not None and member not in changes:
                before = self.known[member]
                after = self._take_in(nodes, node, member)
                if after is not before and after != before:
                    changes[member] = Change(before, after)
        return changes

    def _take_in(self, nodes: Nodes, node: Node, member: Any) -> Any:
        value = self.known[member] = nodes.read(node)
        self._link(node, member)
        return value

    def _link(self, node: Node, member: Any) -> None:
        node.readers[self] = self.turn
        self.linked[node] = member
        self.deps = self.linked

    def _start_over(self, nodes: Nodes) -> None:
        """Forgets what the value was made from: it is made anew, the next time."""
        for node in self.linked:
            nodes.unlink(node, self)
        self.known, self.linked, self.deps, self.wanted = {}, {}, (), frozenset()
        self.value, self.state = UNSET, DIRTY
