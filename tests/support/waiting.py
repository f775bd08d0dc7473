"""Waiting for something to become true, with a deadline instead of a sleep."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def until(
    condition: Callable[[], T | Awaitable[T]],
    *,
    what: str,
    within_s: float = 30.0,
    every_s: float = 0.005,
    detail: Callable[[], str] = lambda: "",
) -> T:
    """Calls `condition` until it gives something true and returns that; an OSError on the way counts as not yet.

    Raises AssertionError, naming `what` was awaited and what `detail` says, when the deadline passes.
    """
    deadline = time.monotonic() + within_s
    seen: object = None
    while True:
        try:
            outcome = condition()
            value = cast("T", await outcome if inspect.isawaitable(outcome) else outcome)
            if value:
                return value
            seen = value
        except OSError as fault:
            seen = fault
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {within_s} s for {what}; last seen: {seen!r}\n{detail()}".rstrip())
        await asyncio.sleep(every_s)


async def soon(measure: Callable[[], Awaitable[float]], *, within_s: float, rounds: int = 4) -> None:
    """Asserts that what `measure` does and times takes at most so long, in one of several rounds.

    A busy machine makes a round late; what is late by itself is late in every one.
    """
    took_s = [await measure()]
    while took_s[-1] > within_s and len(took_s) < rounds:
        took_s.append(await measure())
    assert took_s[-1] <= within_s, f"took {took_s} s"
