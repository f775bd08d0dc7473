"""Tells how an event loop fares while something large is done beside it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Turns:
    """What a loop did beside a change: how often it had its turn, and how long it went without one at the most."""

    count: int = 0
    longest_s: float = 0.0
    whole_s: float = 0.0


async def turns(ask: Callable[[], Collection[object]], until: object) -> Turns:
    """Asks as often as the loop comes round, until all answers are this one; each time they are alike."""
    found = Turns()
    (before,) = set(ask())
    begun = last = time.perf_counter()
    while True:
        answers = set(ask())
        assert answers in ({before}, {until}), "some are new and some are not"
        if answers == {until}:
            found.whole_s = time.perf_counter() - begun
            return found
        await asyncio.sleep(0.0005)
        now = time.perf_counter()
        found.count += 1
        found.longest_s = max(found.longest_s, now - last)
        last = now


@contextmanager
def full_collections() -> Iterator[list[int]]:
    """Notes each time that the garbage collector looks at everything."""
    found: list[int] = []

    def collected(phase: str, told: dict[str, int]) -> None:
        if phase == "stop" and told["generation"] == 2:
            found.append(told["collected"])

    gc.callbacks.append(collected)
    try:
        yield found
    finally:
        gc.callbacks.remove(collected)
