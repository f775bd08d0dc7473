"""Deadlines of calls that wait, in slots of a few ms: no timer per call, nothing left behind by one that ends."""

import asyncio
from typing import Protocol

SLOT_S = 0.005
HORIZON_S = 60.0


class Expiring(Protocol):
    deadline: float | None
    slot: "set[Expiring] | None"
    """Where it is watched; a call that ends discards itself from it."""

    def expire(self) -> None: ...


class Deadlines:
    """Tells a call to expire at most one slot after its deadline."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Expiring]] = {}

    def watch(self, call: Expiring, deadline: float) -> None:
        # The horizon bounds the number of timers, whatever deadlines peers make up.
        due = min(deadline, self._loop.time() + HORIZON_S)
        number = int(due / SLOT_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            self._loop.call_at(number * SLOT_S, self._fire, number)
        slot.add(call)
        call.slot = slot

    def _fire(self, number: int) -> None:
        now = self._loop.time()
        for call in list(self._slots.pop(number, ())):
            if call.deadline is None or call.deadline <= now:
                call.expire()
            else:
                self.watch(call, call.deadline)
