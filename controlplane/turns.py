"""Whose turn it is with the engine: what takes a moment runs on the event loop, what takes seconds on a thread."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Turns:
    """Only one is at work. While that is a thread, what comes meanwhile waits, and then runs in the order it came in.

    Used on the event loop.
    """

    def __init__(self) -> None:
        self._apart = False
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def taken(self) -> bool:
        """Whether a thread is at work."""
        return self._apart

    def take(self, work: Callable[[], object]) -> None:
        """Does the work now, or as soon as the thread is done; then what it raises is logged."""
        if self._apart:
            self._waiting.append(work)
        else:
            work()

    async def apart(self, work: Callable[[], T], then: Callable[[T], object]) -> None:
        """Does the work on a thread, then `then` with what it returned, on the event loop; raises what they raise.

        Who is cancelled meanwhile leaves the thread at work: then it is nobody's turn any more.
        """
        assert not self._apart
        self._apart = True
        try:
            result = await asyncio.to_thread(work)
        except Exception:
            self._let_others()
            raise
        self._apart = False
        try:
            then(result)
        finally:
            self._let_others()

    def _let_others(self) -> None:
        self._apart = False
        while self._waiting:
            work = self._waiting.popleft()
            try:
                work()
            except Exception:
                _log.exception("what waited for its turn has failed")
