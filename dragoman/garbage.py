"""Keeps Python's garbage collector from stopping everything while something large is read, and just after it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator
from typing import Final

_MANY: Final = 20_000
"""New objects that take the collector a few milliseconds to look through."""


@contextlib.contextmanager
def collector_paused() -> Generator[None]:
    """Leaves the collector out meanwhile: a million things that come and stay make it look at all of them, many times.

    It stops all threads each time, for seconds in the end. What has no cycles is freed as ever. Let in again, it would
    at once look at all that has come: if that is much, it is never looked at. What else is garbage at that moment is
    then not found either, which is little, and seldom.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_count()[0] > _MANY:
                gc.freeze()
            gc.enable()
