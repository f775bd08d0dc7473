"""Keeps files in force: reads them beside the event loop, again whenever they change, and never half of a change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from dragoman.beside import beside
from dragoman.file_watch import Folders, looks
from dragoman.garbage import collector_paused

_log = logging.getLogger(__name__)

_SETTLING_S: Final = 0.01
_SETTLED_LOOKS: Final = 3
_MOST_LOOKS: Final = 100

T = TypeVar("T", covariant=True)
R = TypeVar("R")


async def keep_following(run: Callable[[], Awaitable[None]], *, again_after_s: float = 1.0) -> None:
    """Runs what follows a configuration, and runs it anew where it fails, until cancelled."""
    while True:
        try:
            await run()
        except Exception:
            # What is in force stays, but changes must not be missed for ever.
            _log.exception("the configuration was not followed any more, and is followed anew")
        await asyncio.sleep(again_after_s)


class Files(Protocol[T]):
    """What is followed; all of it is called in threads."""

    def state(self) -> Hashable:
        """Returns what differs once anything has changed of what was read last."""
        ...

    def folders(self) -> Folders:
        """Returns where a change is noticed at once."""
        ...

    def read(self) -> tuple[Hashable, T]:
        """Returns the state of the files before they were read, and what they hold."""
        ...


class Followed(Generic[R]):
    """Hands what is read of `files` over to `take`, one after the other.

    What has changed again while it was read is not handed over: it is read once more. What `take` raises ends `run`,
    and who runs it again has the same change handed over again.
    """

    def __init__(self, path: Path, files: Files[R], take: Callable[[R], Awaitable[None]]) -> None:
        self._path = path
        self._files = files
        self._take = take
        self._seen: Hashable = None

    async def load(self) -> None:
        """Reads the files now."""
        self._seen, found = await beside(self._read)
        await self._take(found)

    async def run(self) -> None:
        """Follows the files until cancelled."""
        async with contextlib.aclosing(looks(self._path, self._files.folders)) as found:
            async for _ in found:
                await self._look()

    async def _look(self) -> None:
        state = await beside(self._files.state)
        while state != self._seen:
            await self._settled(state)
            whole = await beside(self._read_whole)
            if whole is None:
                state = await beside(self._files.state)
                continue
            state, found = whole
            await self._take(found)
            # Only now: had that failed, it would be tried again.
            self._seen = state

    async def _settled(self, state: Hashable) -> None:
        """Waits until nothing changes: who writes a file in place may be halfway, and half a file may make sense."""
        same = 0
        for _ in range(_MOST_LOOKS):
            await asyncio.sleep(_SETTLING_S)
            before, state = state, await beside(self._files.state)
            same = same + 1 if state == before else 0
            if same == _SETTLED_LOOKS:
                return

    def _read_whole(self) -> tuple[Hashable, R] | None:
        """Returns what the files hold; None if some were read before a change, and some after it."""
        state, found = self._read()
        return (state, found) if self._files.state() == state else None

    def _read(self) -> tuple[Hashable, R]:
        # In another thread too the collector would have requests wait.
        with collector_paused():
            return self._files.read()
