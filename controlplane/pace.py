"""When the next step may begin: at once where nothing happens, grouped under load, never long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final

LONGEST_REST_S: Final = 0.05
_MOST_RESTS: Final = 9.0
_GROWTH_A_SECOND: Final = 4.0


class Pace:
    """Lets a step follow the one before only after as long a time as that one took, at most `longest_s`.

    Meanwhile the source goes on collecting, so that a burst becomes few steps, and at least half of the time is left
    for what is not a step: sending, answering. As long as changes keep coming, rests grow against the steps: a storm
    that goes on costs a tenth of the time. A change that comes later than the rest is taken at once, and all is as
    before.
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
        self._rest_s = 0.0
        self._until = self._busy_since = clock()

    @contextmanager
    def step(self) -> Generator[None]:
        """Holds what one step does, without waiting for anybody."""
        start = self._clock()
        if start - self._until > self._rest_s:
            self._busy_since = start
        try:
            yield
        finally:
            end = self._clock()
            rests = min(1.0 + (start - self._busy_since) * _GROWTH_A_SECOND, _MOST_RESTS)
            self._rest_s = min((end - start) * rests, self._longest_s)
            self._until = end + self._rest_s

    async def rest(self) -> None:
        """Returns when the next step may begin; to be called before its changes are collected."""
        left = self._until - self._clock()
        if left > 0:
            await self._sleep(left)
