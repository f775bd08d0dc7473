"""Counters in the memory of this process: exact for all that ask it, gone with it."""

from __future__ import annotations

import marshal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ratelimit_service.algorithms.fixed_window import window_start
from ratelimit_service.algorithms.together import decide
from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight

if TYPE_CHECKING:
    from ratelimit_service.algorithms.base import Conditional

_STEP = 4
"""How many dead entries each request helps to remove, so that none has to remove a million."""
_SHARDS = 256
"""A dictionary that grows copies itself: many small ones do so one by one, and none of them takes long."""

_NEVER = -(2**62)
"""The start of a window that is long over."""
_MAX_LENGTHS = 512
"""How many lengths of windows there are counters for: a request can bring any number of units."""

_Counts = list[dict[bytes, int]]
_Held = bytes | tuple[Any, float]
"""An algorithm's state, and when it expires; packed if it is a tuple, lest the garbage collector visit a million."""


class _Window:
    """The counters of one unit's present window: they all end together."""

    __slots__ = ("shards", "start")

    def __init__(self) -> None:
        self.start = _NEVER
        self.shards: _Counts = [{} for _ in range(_SHARDS)]


class MemoryStore:
    """Holds up to `max_keys` live counters and forgets none of them: past the bound it cannot answer for new keys."""

    def __init__(self, *, max_keys: int = 1_000_000) -> None:
        self._max_keys = max_keys
        self._windows: dict[int, _Window] = {}
        self._held: list[dict[bytes, _Held]] = [{} for _ in range(_SHARDS)]
        self._swept = 0
        self._to_sweep = 0
        self._states = 0
        self._dead: _Counts = []
        self._keys = 0
        self.refused = 0
        """How often there was no room for a new counter."""
        self.since = time.time()
        """Unix time from when on it has counted."""
        self.served = 0
        """How many checks were counted for other workers."""

    available = True

    @property
    def keys(self) -> int:
        """How many counters are held."""
        return self._keys

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Adds the hits and settles the flight at once."""
        if flight.together:
            flight.replies = decide(checks, lambda check: self.count(check, check.counter.prefix, now))
        else:
            flight.replies = [self.count(check, check.counter.prefix, now) for check in checks]
        flight.settle()

    async def close(self) -> None:
        """Does nothing."""

    def count(self, check: Check, key: bytes, now: float) -> int | None:
        """Adds the hits of a check to the counter of that key; returns the reply, None where there is no room."""
        if self._dead:
            self._bury()
        limit = check.limit
        if limit.script is not None:
            return self._scripted(check, key, now)
        seconds = limit.seconds
        second = int(now)
        window = self._windows.get(seconds)
        if window is None:
            window = self._begun(seconds, second)
            if window is None:
                return None
        if not 0 <= second - window.start < seconds:
            self._turn(window, window_start(second, seconds, window.start))
        counts = window.shards[hash(key) % _SHARDS]
        count = counts.get(key)
        if count is None:
            if not self._has_room(second):
                return None
            self._keys += 1
            count = 0
        counts[key] = count = count + check.hits
        if count < 0:
            # More was given back than this window has counted.
            counts[key] = count = 0
        return count

    def _begun(self, seconds: int, second: int) -> _Window | None:
        """Returns windows of another length; None where there is no room for them."""
        if len(self._windows) >= _MAX_LENGTHS:
            ended = [length for length, window in self._windows.items() if window.start + length <= second]
            for length in ended:
                self._retire(self._windows.pop(length))
        if len(self._windows) >= _MAX_LENGTHS:
            self.refused += 1
            return None
        window = self._windows[seconds] = _Window()
        return window

    def _scripted(self, check: Check, key: bytes, now: float) -> int | None:
        states = self._held[hash(key) % _SHARDS]
        held = states.get(key)
        counting = cast("Conditional", check.limit.counting)
        reply, state, expires = counting.step(check, None if held is None else _unpacked(held)[0], now)
        if state is None:
            return reply
        if expires <= now:
            if states.pop(key, None) is not None:
                self._forget(1)
            return reply
        if held is None:
            if not self._has_room(int(now)):
                return None
            self._keys += 1
            self._states += 1
            # Making room may have put another dictionary in the place of this one.
            states = self._held[hash(key) % _SHARDS]
        states[key] = marshal.dumps((state, expires)) if state.__class__ is tuple else (state, expires)
        return reply

    def _has_room(self, second: int) -> bool:
        if self._states:
            self._sweep(second)
        if self._keys < self._max_keys:
            return True
        for seconds, window in self._windows.items():
            if window.start + seconds <= second:
                self._retire(window)
        if self._keys < self._max_keys:
            return True
        self.refused += 1
        return False

    def _sweep(self, second: int) -> None:
        """Removes states that have expired: on the average, looks at a few of them for each new counter."""
        self._to_sweep = min(self._to_sweep + _STEP, self._keys)
        for _ in range(_SHARDS // 8):
            states = self._held[self._swept]
            if len(states) > self._to_sweep:
                return
            if states:
                self._to_sweep -= len(states)
                live = {key: held for key, held in states.items() if _unpacked(held)[1] > second}
                self._forget(len(states) - len(live))
                self._held[self._swept] = live
            self._swept = (self._swept + 1) % _SHARDS

    def _forget(self, states: int) -> None:
        self._keys -= states
        self._states -= states

    def _turn(self, window: _Window, start: int) -> None:
        if start != window.start:
            self._retire(window)
            window.start = start

    def _retire(self, window: _Window) -> None:
        full = [counts for counts in window.shards if counts]
        if full:
            self._keys -= sum(map(len, full))
            self._dead += full
            window.shards = [{} for _ in range(_SHARDS)]

    def _bury(self) -> None:
        dead = self._dead[-1]
        for _ in range(min(_STEP, len(dead))):
            dead.popitem()
        if not dead:
            self._dead.pop()


def _unpacked(held: _Held) -> tuple[Any, float]:
    return marshal.loads(held) if isinstance(held, bytes) else held  # noqa: S302  (packed by this process)
