"""A bounded dictionary of what can be worked out again: the least recently used half goes when it is full."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MARKS = 4
"""Keys that were offered once are known by their hashes: so many for each value of a generation."""


class Memo(Generic[K, V]):
    """Two generations of up to `size` entries each. The request path looks into `young` itself, then calls `get`."""

    __slots__ = ("_dead", "_marks", "_old", "_size", "young")

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._dead: dict[K, V] = {}
        self._marks: array[int] | None = None

    def get(self, key: K) -> V | None:
        """Returns the value, which then counts as used; None for a key that is not there."""
        value = self.young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Adds a value; when a generation is full, the one before it is forgotten."""
        dead = self._dead
        if dead:
            # One for each that is added: a whole generation at once would keep requests waiting.
            dead.popitem()
        if len(self.young) >= self._size:
            self._dead = self._old
            self._old = self.young
            self.young = {}
        self.young[key] = value

    def offer(self, key: K, value: V) -> bool:
        """Adds a value if its key was offered before, and not long ago: what is asked for once need not be held.

        Returns whether it was added.
        """
        marks = self._marks
        if marks is None:
            marks = self._marks = array("q", bytes(8 * _MARKS * self._size))
        mark = hash(key)
        at = mark % len(marks)
        if marks[at] != mark:
            marks[at] = mark
            return False
        self.put(key, value)
        return True

    def kept(self, holds: Callable[[K, V], bool]) -> Memo[K, V]:
        """Returns another with those entries that hold; may run in a thread while entries are added here."""
        made: Memo[K, V] = Memo(self._size)
        made._marks = self._marks
        made._old = {key: value for key, value in self._old.copy().items() if holds(key, value)}
        made.young = {key: value for key, value in self.young.copy().items() if holds(key, value)}
        return made

    def dismiss(self) -> None:
        """Forgets everything, one by one: for another thread, once nobody uses this any more."""
        for generation in (self.young, self._old, self._dead):
            while generation:
                generation.popitem()

    def values(self) -> Iterator[V]:
        """Yields what it holds, each once."""
        yield from ({**self._old, **self.young}).values()

    def clear(self) -> None:
        """Forgets everything."""
        self.young = {}
        self._old = {}
        self._dead = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
