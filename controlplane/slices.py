"""Long work on a control plane that serves meanwhile: done in slices, so that nobody waits for the whole of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Generator, Mapping
from typing import Final, TypeVar, cast

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that may be interrupted wherever it yields; it returns its result."""

SLICE_S: Final = 0.004
_MOST_TRIES: Final = 3


def finish(steps: Steps[T]) -> T:
    """Does all of it at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def encoding(value: object, *, depth: int = 3) -> Steps[str]:
    """Encodes data as JSON; mappings are gone through item by item down to a depth."""
    if depth and isinstance(value, Mapping):
        pieces: list[str] = []
        for name, each in cast("Mapping[str, object]", value).items():
            pieces.append(f"{json.dumps(name)}: {(yield from encoding(each, depth=depth - 1))}")
            yield
        return "{" + ", ".join(pieces) + "}"
    return json.dumps(value)


async def in_slices(work: Callable[[], Steps[T]], *, state: Callable[[], object], slice_s: float = SLICE_S) -> T:
    """Does work on the event loop, which turns after each slice; begins anew where `state` is another by then.

    Where that goes on and on, the work is done at once in the end.
    """
    for _ in range(_MOST_TRIES):
        before, steps = state(), work()
        while True:
            try:
                _advance(steps, slice_s)
            except StopIteration as done:
                return done.value
            await asyncio.sleep(0)
            if state() != before:
                steps.close()
                break
    return finish(work())


def _advance(steps: Steps[T], slice_s: float) -> None:
    until = time.perf_counter() + slice_s
    while time.perf_counter() < until:
        next(steps)
