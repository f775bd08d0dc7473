"""Which objects are next: each at most once, in the order in which they came, some not before a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from controlplane.api.meta import ObjectKey


class Timer(Protocol):
    """What is to happen later, as long as nobody cancels it."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after so many seconds."""


class KeyQueue:
    """Keys that wait. One that is taken comes back only after it is done."""

    def __init__(self, later: Later | None = None) -> None:
        self._later = later
        self._waiting: dict[ObjectKey, None] = {}
        self._held: dict[ObjectKey, Timer] = {}
        self._taken: dict[ObjectKey, bool] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held) + len(self._taken)

    def put(self, keys: Iterable[ObjectKey]) -> None:
        """Queues keys; those that are held come at once, those that are taken once more when done."""
        for key in keys:
            if key in self._taken:
                self._taken[key] = True
            else:
                self._unhold(key)
                self._waiting[key] = None
        if self._waiting:
            self._wake.set()

    async def take(self) -> ObjectKey:
        """Waits for the next key."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        key = next(iter(self._waiting))
        del self._waiting[key]
        self._taken[key] = False
        return key

    def done(self, key: ObjectKey, *, again_in_s: float | None = None) -> None:
        """Ends what `take` began; the key comes again after a time, unless it is put before."""
        if self._taken.pop(key, False):
            self.put((key,))
        elif again_in_s is not None:
            later = self._later or asyncio.get_running_loop().call_later
            self._held[key] = later(again_in_s, lambda: self.put((key,)))

    def clear(self) -> None:
        """Forgets all that waits."""
        self._waiting.clear()
        self._taken = dict.fromkeys(self._taken, False)
        for key in list(self._held):
            self._unhold(key)

    def _unhold(self, key: ObjectKey) -> None:
        timer = self._held.pop(key, None)
        if timer is not None:
            timer.cancel()
