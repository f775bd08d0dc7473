"""Has what is written for the input at hand written at its end, all of it at once, and not a turn of the loop later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Batch:
    """Shared by the protocols of one event loop whose input makes one another write.

    A protocol that works off input does so between `begin` and `end`. What others would have the loop call soon is
    called at the end of that: where calls come one by one a turn of the loop would cost more than what is done in it.
    """

    __slots__ = ("_due", "_loop", "_open")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Callable[[], object]] = []
        self._open = False

    def begin(self) -> None:
        """Input is worked off from now on, until `end`; nothing may be awaited meanwhile."""
        self._open = True

    def end(self) -> None:
        """Calls what is due. An error goes where those of the loop's callbacks go."""
        due = self._due
        for each in due:
            try:
                each()
            except Exception as error:
                self._loop.call_exception_handler({"message": f"error in {each!r}", "exception": error})
        due.clear()
        self._open = False

    def soon(self, callback: Callable[[], object]) -> None:
        """Has it called at the end of the batch, or soon where there is none."""
        if self._open:
            self._due.append(callback)
        else:
            self._loop.call_soon(callback)
