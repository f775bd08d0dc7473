"""Where answers are held until it is their request's turn: bounded, and left at once by who is gone when it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dragoman.grpc_worker import Call

MAX_WAITING = 10_000
_SWEEP_EVERY_S = 0.1
_WAY_BACK_S = 0.01
"""What a call needs to be answered in time beside the wait: to ask the store, and to be read."""


class WaitingRoom:
    """Holds answers back, at most `most` at a time: each has a timer, a few hundred bytes and a stream at its peer."""

    def __init__(self, *, most: int = MAX_WAITING) -> None:
        self._most = most
        self._asking = 0
        self._held: dict[Call, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._swept_at = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, call: Call) -> int:
        """Returns for how many microseconds the call may wait: -1 for any time, 0 for not at all. Each `enter` is
        followed by one `leave` or `hold`.
        """
        self._asking += 1
        if self._asking + len(self._held) > self._most and not self._swept():
            return 0
        if call.deadline is None:
            return -1
        left_s = call.deadline - asyncio.get_running_loop().time() - _WAY_BACK_S
        return max(0, int(left_s * 1_000_000))

    def leave(self) -> None:
        """Says that the call has its answer."""
        self._asking -= 1

    def hold(self, call: Call, wait_s: float, finish: Callable[[], None]) -> None:
        """Calls `finish` when the wait is over."""
        self._asking -= 1
        self._held[call] = asyncio.get_running_loop().call_later(wait_s, self._due, call), finish

    def _due(self, call: Call) -> None:
        _, finish = self._held.pop(call)
        finish()

    def _swept(self) -> bool:
        """Lets those go whose peer has left or whose time is over; returns whether there is room."""
        now = asyncio.get_running_loop().time()
        if now - self._swept_at < _SWEEP_EVERY_S:
            return False
        self._swept_at = now
        for call in [call for call in self._held if call.cancelled]:
            timer, finish = self._held.pop(call)
            timer.cancel()
            finish()
        return self._asking + len(self._held) <= self._most
