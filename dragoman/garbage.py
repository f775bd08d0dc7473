"""Keeps Python's garbage collector from stopping everything while something large is read."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def collector_paused() -> Generator[None]:
    """Leaves the collector out meanwhile: a million things that come and stay make it look at all of them, many times.

    It stops all threads each time, for seconds in the end. What has no cycles is freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
