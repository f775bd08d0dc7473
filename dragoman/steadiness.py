"""Keeps what a serving process does beside its event loop from holding that up: other threads, the collector."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Generator
from typing import Final

_SWITCH_INTERVAL_S: Final = 0.0001
_THRESHOLDS: Final = (700, 3, 300)
"""New objects to a collection of those, such to one that looks at what they left, and those to one of everything."""


@contextlib.contextmanager
def steady_loop() -> Generator[None]:
    """Lets the event loop go before everything else; entered when all is there that stays.

    A thread that computes lets it have its turn after 0.1 ms, not after Python's 5. What exists now is never looked at
    again by the garbage collector, and the rest seldom: looking through what serves so many requests takes it 20 ms
    and more, and what those leave behind has no cycles.
    """
    thresholds, interval_s = gc.get_threshold(), sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        gc.set_threshold(*thresholds)
