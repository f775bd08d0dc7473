"""Counters in the memory of this process: exact for one process, gone with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight

_STEP = 4
"""How many dead entries each request helps to remove, so that none has to remove a million."""


class _Window:
    """The counters of one unit's present window: they all end together."""

    __slots__ = ("counts", "start")

    def __init__(self) -> None:
        self.start = -1
        self.counts: dict[bytes, int] = {}


class MemoryStore:
    """Holds up to `max_keys` live counters and forgets none of them: past the bound it cannot answer for new keys."""

    def __init__(self, *, max_keys: int = 1_000_000) -> None:
        self._max_keys = max_keys
        self._windows: dict[int, _Window] = {}
        self._held: OrderedDict[bytes, tuple[Any, float]] = OrderedDict()
        self._dead: list[dict[bytes, int]] = []
        self._keys = 0
        self.refused = 0
        """How often there was no room for a new counter."""

    available = True

    @property
    def keys(self) -> int:
        """How many counters are held."""
        return self._keys

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Adds the hits and settles the flight at once."""
        flight.replies = [
            self._fixed(check, int(now)) if check.limit.script is None else self._scripted(check, now)
            for check in checks
        ]
        if self._dead:
            self._bury()
        flight.settle()

    async def close(self) -> None:
        """Does nothing."""

    def _fixed(self, check: Check, second: int) -> int | None:
        seconds = check.limit.seconds
        window = self._windows.get(seconds)
        if window is None:
            window = self._windows[seconds] = _Window()
        start = second - second % seconds
        if start > window.start:
            # A clock that goes back stays in the window that has begun.
            self._retire(window)
            window.start = start
        key = check.counter.prefix
        count = window.counts.get(key)
        if count is None:
            if not self._has_room(second):
                return None
            self._keys += 1
            count = 0
        window.counts[key] = count = count + check.hits
        return count

    def _scripted(self, check: Check, now: float) -> int | None:
        key = check.counter.prefix
        held = self._held.get(key)
        reply, state, expires = check.limit.counting.step(check, None if held is None else held[0], now)
        if state is None:
            return reply
        if held is None:
            if not self._has_room(int(now)):
                return None
            self._keys += 1
        self._held[key] = state, expires
        return reply

    def _has_room(self, second: int) -> bool:
        for _ in range(min(_STEP, len(self._held))):
            key, held = self._held.popitem(last=False)
            if held[1] <= second:
                self._keys -= 1
            else:
                self._held[key] = held
        if self._keys < self._max_keys:
            return True
        for seconds, window in self._windows.items():
            if window.start + seconds <= second:
                self._retire(window)
        if self._keys < self._max_keys:
            return True
        self.refused += 1
        return False

    def _retire(self, window: _Window) -> None:
        self._keys -= len(window.counts)
        if window.counts:
            self._dead.append(window.counts)
            window.counts = {}

    def _bury(self) -> None:
        dead = self._dead[-1]
        for _ in range(min(_STEP, len(dead))):
            dead.popitem()
        if not dead:
            self._dead.pop()
