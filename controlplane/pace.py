"""When the next step may begin: at once where nothing happens, grouped under load, never long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final

LONGEST_REST_S: Final = 0.1


class Pace:
    """Lets a step follow the one before only after as long a time as that one took, at most `longest_s`.

    Meanwhile the source goes on collecting, so that a burst becomes few steps, whatever a step costs; at least half of
    the time is left for what is not a step: sending, answering. A change that comes later than that is taken at once.
    """

    def __init__(
        self,
        *,
        longest_s: float = LONGEST_REST_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._sleep = sleep
        self._until = clock()

    @contextmanager
    def step(self) -> Generator[None]:
        """Holds what one step does, without waiting for anybody."""
        start = self._clock()
        try:
            yield
        finally:
            end = self._clock()
            self._until = end + min(end - start, self._longest_s)

    async def rest(self) -> None:
        """Returns when the next step may begin; to be called before its changes are collected."""
        left = self._until - self._clock()
        if left > 0:
            await self._sleep(left)
