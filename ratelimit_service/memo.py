"""A bounded dictionary of what can be worked out again: the least recently used half goes when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Two generations of up to `size` entries each. The request path looks into `young` itself, then calls `get`."""

    __slots__ = ("_old", "_size", "young")

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}

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
        if len(self.young) >= self._size:
            self._old = self.young
            self.young = {}
        self.young[key] = value

    def values(self) -> Iterator[V]:
        """Yields what it holds, each once."""
        yield from ({**self._old, **self.young}).values()

    def clear(self) -> None:
        """Forgets everything."""
        self.young = {}
        self._old = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
