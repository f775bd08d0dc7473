"""Warnings about peers, so few that a peer that goes on and on does not fill the log."""

import asyncio
import logging

EVERY_S = 1.0


class Complaints:
    """Logs one of a kind of warning, and then how many there were, at most once a second."""

    def __init__(self, log: logging.Logger, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop
        self._at = -EVERY_S
        self._count = 0

    def note(self, message: str, *args: object) -> None:
        """Counts one, and logs it when it is time."""
        self._count += 1
        now = self._loop.time()
        if now - self._at >= EVERY_S:
            self._log.warning(f"{message} (%d such since the last report)", *args, self._count)
            self._at, self._count = now, 0
