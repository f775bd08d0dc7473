"""Values that are made from many others: told only what is new, and the same whichever way they came to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.graph import Change, Derived, Fold, Graph, Index, Root, Table


class _Rooms:
    """Items in rooms; of each room its sum, folded, where an item that is negative cannot be computed."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.items: Table[str, tuple[str, int]] = self.graph.table("items")  # item → (room, worth)
        self.told: list[Mapping[str, Change[int]]] = []
        by_room: Index[str, str] = self.graph.group("by room", self.items, self._room_of)
        worth: Derived[str, int] = self.graph.derive("worth", self._worth)
        self.sums: Fold[str, str, int, tuple[int, ...]] = self.graph.fold(
            "sums", by_room.get, worth, lambda _, item: item, self._update
        )
        self.seen: Derived[str, tuple[int, ...]] = self.graph.derive("seen", self.sums.get)
        self.root: Root[str, tuple[int, ...]] = self.graph.root(lambda: ["a", "b"], self.seen)

    def _room_of(self, item: str) -> list[tuple[str, str]]:
        return [((self.items.get(item) or ("", 0))[0], item)]

    def _worth(self, item: str) -> int:
        worth = (self.items.get(item) or ("", 0))[1]
        if worth < 0:
            raise ValueError(item)
        return worth // 2

    def _update(self, _: str, before: tuple[int, ...] | None, changes: Mapping[str, Change[int]]) -> tuple[int, ...]:
        self.told.append(changes)
        found = list(before or ())
        for change in changes.values():
            if change.before is not None:
                found.remove(change.before)
            if change.after is not None:
                found.append(change.after)
        return tuple(sorted(found))


def test_a_fold_is_told_only_of_what_has_another_value() -> None:
    rooms = _Rooms()
    for number in range(100):
        rooms.items.set(f"i{number}", ("a", number * 2))
    rooms.graph.stabilise()
    rooms.told.clear()
    rooms.items.set("i7", ("a", 15))  # worth 7, as before
    rooms.items.set("i8", ("a", 1000))
    rooms.items.set("new", ("a", 4))
    rooms.items.delete("i9")
    rooms.graph.stabilise()
    (told,) = rooms.told
    assert told == {"i8": Change(8, 500), "new": Change(None, 2), "i9": Change(9, None)}


def test_a_fold_that_nothing_reads_any_more_is_forgotten_with_its_members() -> None:
    graph = Graph()
    items: Table[str, int] = graph.table("items")
    worth: Derived[str, int] = graph.derive("worth", lambda key: items.get(key) or 0)
    members: Index[str, str] = graph.group("members", items, lambda key: [("all", key)])
    total: Fold[str, str, int, int] = graph.fold(
        "total", members.get, worth, lambda _, item: item, lambda _, before, changes: (before or 0) + len(changes)
    )
    read: Derived[str, int] = graph.derive("read", total.get)
    wanted: Table[str, None] = graph.table("wanted")
    root = graph.root(wanted, read)
    items.set("a", 1)
    wanted.set("all", None)
    graph.stabilise()
    assert (dict(root.current()), len(worth)) == ({"all": 1}, 1)
    wanted.delete("all")
    graph.stabilise()
    assert (dict(root.current()), len(worth), len(read)) == ({}, 0, 0)


_ITEMS = st.sampled_from(["i1", "i2", "i3", "i4"])
_EDITS = st.lists(
    st.lists(st.tuples(_ITEMS, st.none() | st.tuples(st.sampled_from("abc"), st.integers(-1, 6))), max_size=4),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(_EDITS)
def test_warm_folds_equal_cold_ones_after_any_edits_and_failures(edits: list[list[tuple[str, Any]]]) -> None:
    warm = _Rooms()
    rows: dict[str, tuple[str, int]] = {}
    for batch in edits:
        for item, row in batch:
            if row is None:
                rows.pop(item, None)
                warm.items.delete(item)
            else:
                rows[item] = row
                warm.items.set(item, row)
        if any(room != "c" and worth < 0 for room, worth in rows.values()):
            with pytest.raises(ValueError, match="i"):
                warm.graph.stabilise()
        else:
            warm.graph.stabilise()
    rows = {item: (room, max(worth, 0)) for item, (room, worth) in rows.items()}
    for item, row in rows.items():
        warm.items.set(item, row)
    warm.graph.stabilise()
    cold = _Rooms()
    for item, row in rows.items():
        cold.items.set(item, row)
    cold.graph.stabilise()
    assert dict(warm.root.current()) == dict(cold.root.current())


def test_a_row_that_says_the_same_of_itself_as_before_moves_only_what_it_says_anew() -> None:
    graph = Graph()
    rows: Table[str, tuple[str, ...]] = graph.table("rows")
    tags: Index[str, str] = graph.group("tags", rows, lambda key: [(tag, key) for tag in rows.get(key) or ()])
    of_tag: Derived[str, frozenset[str]] = graph.derive("of tag", tags.get)
    graph.root(lambda: ["x", "y", "z"], of_tag)
    rows.set("one", ("x", "x", "y"))
    rows.set("two", ("x",))
    graph.stabilise()
    graph.recomputed.clear()
    rows.set("one", ("x", "y", "z"))
    graph.stabilise()
    assert graph.recomputed["of tag"] == 1
    assert (of_tag.get("x"), of_tag.get("z")) == ({"one", "two"}, {"one"})
