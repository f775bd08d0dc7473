"""The nodes of a graph of values, and how staleness travels between them.

A changed leaf makes its readers *dirty*; what reads those is only to be *checked*, and remembers which of its inputs
may have moved. A checked node whose inputs turn out equal is not recomputed (early cut-off).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

# Plain numbers: members of an enum are slow to look up, and these are compared for every read.
CLEAN: Final = 0
CHECK: Final = 1  # some of `pending` may have changed
DIRTY: Final = 2  # an input changed: must be recomputed
COMPUTING: Final = 3


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET: Final[Any] = _Unset()
_NOTHING: Final[tuple[Node, ...]] = ()


class CycleError(Exception):
    """A derived value was read while it was being computed."""


class Owner(Protocol):
    """A collection that nodes belong to."""

    @property
    def name(self) -> str: ...
    @property
    def compute(self) -> Callable[[Any], Any]: ...
    def forget(self, node: Node) -> None:
        """Drops a node that nothing reads any more."""
        ...


class Node:
    """A value in the graph: a derived value, or a leaf (a table's row, an index's bucket), which is never stale.

    `readers` has, of each node that reads this one, in which of its computations it last did: its `turn`.
    """

    __slots__ = ("deps", "key", "owner", "pending", "readers", "state", "turn", "value")

    def __init__(self, owner: Owner, key: Any, value: Any, state: int = CLEAN) -> None:
        self.owner = owner
        self.key = key
        self.value = value
        self.state = state
        self.turn = 0
        self.deps: Iterable[Node] = _NOTHING
        self.readers: dict[Node, int] = {}
        self.pending: dict[Node, None] | None = None

    def recompute(self, nodes: Nodes) -> None:
        """Computes the value anew, and tells who reads it if it is another."""
        before, deps = self.deps, list[Node]()
        self.deps, self.pending, self.state = deps, None, COMPUTING
        self.turn += 1
        outer, nodes.current = nodes.current, self
        try:
            value = self.owner.compute(self.key)
        except BaseException:
            self.deps = list(dict.fromkeys((*before, *deps)))
            self.state = DIRTY
            raise
        finally:
            nodes.current = outer
        self.state = CLEAN
        nodes.recomputed[self.owner.name] += 1
        if before:
            turn = self.turn
            for dep in before:
                if dep.readers.get(self) != turn:
                    nodes.unlink(dep, self)
        self.take(value, nodes)

    def take(self, value: Any, nodes: Nodes) -> None:
        """Makes a value the node's own, unless it is equal to the one before."""
        old = self.value
        if value is not old and (old is UNSET or value != old):
            self.value = value
            nodes.changed(self)


class Nodes:
    """What all collections of a graph share: who is being computed, and what nobody reads any more."""

    def __init__(self) -> None:
        self.current: Node | None = None
        self.recomputed: Counter[str] = Counter()
        self._orphans: dict[Node, None] = {}

    def read(self, node: Node) -> Any:
        """Returns a node's value, brought up to date; whoever is being computed is its reader from then on."""
        if node.state:
            self.refresh(node)
        reader = self.current
        if reader is not None and node.readers.get(reader) != reader.turn:
            node.readers[reader] = reader.turn
            reader.deps.append(node)  # type: ignore[attr-defined]  (a list, while it is computed)
        return node.value

    def set_leaf(self, node: Node, value: Any) -> None:
        """Gives a leaf another value."""
        node.value = value
        self.changed(node)

    def changed(self, node: Node) -> None:
        """Tells the readers of a node that it has another value."""
        for reader in node.readers:
            state = reader.state
            if state == COMPUTING:
                continue
            reader.state = DIRTY
            if reader.pending is None:
                reader.pending = {}
            reader.pending[node] = None
            if state == CLEAN:
                self._suspect_readers(reader)

    def refresh(self, node: Node) -> None:
        """Brings a node up to date."""
        if node.state == COMPUTING:
            raise CycleError(f"{node.owner.name}({node.key}) depends on itself")
        if node.state == CHECK:
            pending = node.pending
            while pending and node.state == CHECK:
                dep, _ = pending.popitem()
                if dep.state:
                    try:
                        self.refresh(dep)
                    except BaseException:
                        pending[dep] = None  # Still to be looked at, the next time.
                        raise
            if node.state == CHECK:
                node.state = CLEAN
        if node.state == DIRTY:
            node.recompute(self)

    def orphan(self, node: Node) -> None:
        """Takes note of a node that nothing may read any more."""
        self._orphans[node] = None

    def unlink(self, node: Node, reader: Node) -> None:
        """Takes out that one node reads another."""
        node.readers.pop(reader, None)
        if not node.readers:
            self._orphans[node] = None

    def collect(self) -> None:
        """Forgets values that nothing reads any more."""
        while self._orphans:
            node, _ = self._orphans.popitem()
            if not node.readers:
                node.owner.forget(node)
                for dep in node.deps:
                    self.unlink(dep, node)
                node.deps = _NOTHING

    def _suspect_readers(self, node: Node) -> None:
        work = [node]
        while work:
            stale = work.pop()
            for reader in stale.readers:
                if reader.pending is None:
                    reader.pending = {}
                reader.pending[stale] = None
                if reader.state == CLEAN:
                    reader.state = CHECK
                    work.append(reader)
