"""The derived collections: what is recomputed, what is not, and that warm equals cold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.graph import CycleError, Derived, Graph, Index, Root, Table


def _sum_graph() -> tuple[Graph, Table[str, int], Root[str, int]]:
    graph = Graph()
    numbers: Table[str, int] = graph.table("numbers")
    parity: Derived[str, int] = graph.derive("parity", lambda key: (numbers.get(key) or 0) % 2)
    odd: Derived[str, int] = graph.derive("odd", lambda _: sum(parity.get(key) for key in numbers.all_keys()))
    return graph, numbers, graph.root(lambda: ["all"], odd)


def test_a_change_that_makes_no_difference_stops_where_it_stops_mattering() -> None:
    graph, numbers, root = _sum_graph()
    for key, value in {"a": 1, "b": 2, "c": 3}.items():
        numbers.set(key, value)
    graph.stabilise()
    assert root.take_changes() == {"all": 2}
    graph.recomputed.clear()
    numbers.set("a", 5)
    graph.stabilise()
    assert root.take_changes() == {}
    assert graph.recomputed == {"parity": 1}


def test_a_removed_row_is_forgotten_by_everything_derived_from_it() -> None:
    graph = Graph()
    numbers: Table[str, int] = graph.table("numbers")
    double: Derived[str, int | None] = graph.derive("double", lambda key: (numbers.get(key) or 0) * 2)
    root = graph.root(numbers.all_keys, double)
    numbers.set("a", 1)
    graph.stabilise()
    assert dict(root.current()) == {"a": 2}
    root.take_changes()
    numbers.delete("a")
    graph.stabilise()
    assert root.take_changes() == {"a": None}
    assert len(double) == 0


def test_a_value_that_reads_itself_is_refused() -> None:
    graph = Graph()
    holder: list[Derived[int, int]] = []
    loop: Derived[int, int] = graph.derive("loop", lambda key: holder[0].get(key))
    holder.append(loop)
    graph.root(lambda: [1], loop)
    with pytest.raises(CycleError, match=r"loop\(1\)"):
        graph.stabilise()


def test_a_failed_computation_is_tried_again_when_what_it_read_changes() -> None:
    graph = Graph()
    numbers: Table[str, int] = graph.table("numbers")
    inverse: Derived[str, float] = graph.derive("inverse", lambda key: 1 / (numbers.get(key) or 0))
    root = graph.root(lambda: ["a"], inverse)
    numbers.set("a", 0)
    with pytest.raises(ZeroDivisionError):
        graph.stabilise()
    numbers.set("a", 2)
    graph.stabilise()
    assert root.take_changes() == {"a": 0.5}


class _Shop:
    """A graph with every shape that the pipeline has: groups over groups, joins, an aggregate, dynamic reads."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.items: Table[int, tuple[str, int]] = self.graph.table("items")  # id → (shelf, price)
        self.shelves: Table[str, str] = self.graph.table("shelves")  # shelf → room
        self.by_room: Index[str, int] = self.graph.group("by_room", self.items, self._room_of)
        self.by_price: Index[tuple[str, bool], int] = self.graph.group("dear", self.items, self._price_band)
        self.total: Derived[str, tuple[int, int]] = self.graph.derive("total", self._total)
        self.root = self.graph.root(lambda: set(self._rooms()), self.total)

    def _rooms(self) -> list[str]:
        return [self.shelves.get(shelf) or "" for shelf in self.shelves.all_keys()]

    def _room_of(self, item: int) -> list[tuple[str, int]]:
        row = self.items.get(item)
        room = self.shelves.get(row[0]) if row else None
        return [(room, item)] if room else []

    def _price_band(self, item: int) -> list[tuple[tuple[str, bool], int]]:
        row = self.items.get(item)
        if not row:
            return []
        crowded = len(self.by_room.get(self.shelves.get(row[0]) or "")) > 2
        return [((row[0], crowded and row[1] > 5), item)]

    def _total(self, room: str) -> tuple[int, int]:
        rows = [self.items.get(item) for item in sorted(self.by_room.get(room))]
        dear = sum(len(self.by_price.get((shelf, True))) for shelf in {row[0] for row in rows if row})
        return sum(row[1] for row in rows if row), dear


_edits: st.SearchStrategy[list[tuple[Any, ...]]] = st.lists(
    st.one_of(
        st.tuples(st.just("item"), st.integers(0, 6), st.sampled_from("xyz"), st.integers(0, 9)),
        st.tuples(st.just("sold"), st.integers(0, 6)),
        st.tuples(st.just("shelf"), st.sampled_from("xyz"), st.sampled_from(["hall", "cellar"])),
        st.tuples(st.just("burnt"), st.sampled_from("xyz")),
        st.tuples(st.just("stabilise")),
    ),
    max_size=40,
)


def _apply(shop: _Shop, edit: tuple[Any, ...]) -> None:
    actions: dict[str, Callable[..., object]] = {
        "item": lambda key, shelf, price: shop.items.set(key, (shelf, price)),
        "sold": lambda key: shop.items.delete(key),
        "shelf": lambda shelf, room: shop.shelves.set(shelf, room),
        "burnt": lambda shelf: shop.shelves.delete(shelf),
        "stabilise": lambda: shop.graph.stabilise(),
    }
    actions[edit[0]](*edit[1:])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_edits)
def test_warm_equals_cold_after_any_edits(edits: list[tuple[Any, ...]]) -> None:
    warm = _Shop()
    for edit in edits:
        _apply(warm, edit)
    warm.graph.stabilise()
    cold = _Shop()
    for edit in edits:
        if edit[0] != "stabilise":
            _apply(cold, edit)
    cold.graph.stabilise()
    assert dict(warm.root.current()) == dict(cold.root.current())


def test_what_a_failed_computation_held_up_is_made_up_for() -> None:
    graph = Graph()
    numbers: Table[str, int] = graph.table("numbers")
    inverse: Derived[str, float] = graph.derive("inverse", lambda key: 1 / (numbers.get(key) or 0))
    shares: Index[str, float] = graph.group("shares", numbers, lambda key: [("all", inverse.get(key))])
    total: Derived[str, float] = graph.derive("total", lambda name: sum(shares.get(name)))
    rounded: Derived[str, int] = graph.derive("rounded", lambda name: round(total.get(name)))
    root = graph.root(lambda: ["all"], rounded)
    for key, value in {"a": 1, "b": 0, "c": 2}.items():
        numbers.set(key, value)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            graph.stabilise()
    numbers.set("b", 4)
    graph.stabilise()
    assert total.get("all") == 1.75
    assert dict(root.current()) == {"all": 2}
    numbers.set("c", 0)
    with pytest.raises(ZeroDivisionError):
        graph.stabilise()
    numbers.set("d", 5)
    numbers.set("c", 10)
    graph.stabilise()
    assert total.get("all") == pytest.approx(1 + 0.25 + 0.1 + 0.2)
