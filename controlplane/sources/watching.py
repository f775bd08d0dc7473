"""Says when to look at a folder again: at which manifests, or at everything.

`dragoman.file_watch` tells services of a few files only that something happened; among 10,000 manifests the one that
was written is to be known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from controlplane.sources.folder import is_manifest, list_directories
from dragoman.inotify import Event, Inotify

_log = logging.getLogger(__name__)


class Scope(Enum):
    """How much of a folder to look at."""

    PATHS = "the paths of the hint"
    STRUCTURE = "the same, and what came, went or was replaced"
    EVERYTHING = "every file"


@dataclass(frozen=True, slots=True)
class Hint:
    """Where to look."""

    scope: Scope
    paths: frozenset[str] = frozenset()
    """Manifests that were written, replaced or removed."""
    seen_at: float | None = None
    """When the first of that was noticed (`time.monotonic`); None where nobody tells."""


EVERYTHING: Final = Hint(Scope.EVERYTHING)

Notifier = Literal["auto", "inotify", "watchfiles", "polling"]
"""How changes are noticed. auto: inotify on Linux, watchfiles elsewhere. polling: by looking several times a second,
for network file systems that tell nobody of changes."""

# While the folder itself is gone there is nothing to watch.
_RETRY_S: Final = 1.0
_POLL_S: Final = 0.25
_LOOK_ANYWAY_S: Final = 5.0
# Where finished writes cannot be told from those under way, a file must have been left alone for so long.
_SETTLE_S: Final = 0.05


async def hints(
    folder: str, stop: asyncio.Event, *, by: Notifier = "auto", due_s: Callable[[], float | None] = lambda: None
) -> AsyncGenerator[Hint, None]:
    """Yields EVERYTHING once watching has begun, then a hint for each change, until `stop` is set.

    `due_s` says in how many seconds a hint is wanted in any case (None: never).
    """
    if by == "auto":
        by = "inotify" if sys.platform == "linux" else "watchfiles"
    if by == "inotify":
        try:
            async with contextlib.aclosing(_by_inotify(folder, stop, due_s)) as found:
                async for hint in found:
                    yield hint
        except OSError as error:
            _log.warning("no inotify, looking at the folder several times a second instead: %s", error)
            by = "polling"
    while not stop.is_set():
        yield EVERYTHING
        due = due_s()
        if by == "watchfiles" and _is_there(folder):
            await _next_by_watchfiles(folder, stop, _LOOK_ANYWAY_S if due is None else due)
        else:
            await _wait(stop, _POLL_S if due is None else min(due, _POLL_S))


async def _by_inotify(
    folder: str, stop: asyncio.Event, due_s: Callable[[], float | None]
) -> AsyncGenerator[Hint, None]:
    loop = asyncio.get_running_loop()
    notify, wake = Inotify(), asyncio.Event()
    stopping = asyncio.create_task(_set_after(stop, wake))
    noticed: list[float] = []

    def notice() -> None:
        # Until it is drained it would be readable, and the loop would turn for nothing.
        loop.remove_reader(notify.fd)
        noticed.append(time.monotonic())
        wake.set()

    try:
        hint = EVERYTHING
        while not stop.is_set():
            if hint.scope is not Scope.PATHS:
                # Elsewhere, because at the start Envoys wait for what is to be sent.
                listing = await asyncio.to_thread(list_directories, folder)
                notify.watch(listing.directories, listing.linked)
            loop.add_reader(notify.fd, notice)
            if hint.scope is not Scope.PATHS or hint.paths or due_s() == 0:
                yield hint
            gone = not _is_there(folder)
            with contextlib.suppress(TimeoutError):
                # Not wait_for, in which a cancellation is lost that comes with a happening.
                async with asyncio.timeout(_RETRY_S if gone else due_s()):
                    await wake.wait()
            wake.clear()
            seen_at = noticed.pop() if noticed else None
            hint = EVERYTHING if gone else replace(_hint(_drain(notify)), seen_at=seen_at)
    finally:
        loop.remove_reader(notify.fd)
        stopping.cancel()
        notify.close()


def _drain(notify: Inotify) -> list[Event]:
    events: list[Event] = []
    while found := notify.read():
        events += found
    return events


def _hint(events: Iterable[Event]) -> Hint:
    paths: set[str] = set()
    scope = Scope.PATHS
    for event in events:
        if event.lost:
            return EVERYTHING
        # Kubernetes swaps the link `..data` when a ConfigMap changes.
        if event.structural or event.name.startswith(".."):
            scope = Scope.STRUCTURE
        elif is_manifest(event.name):
            path = os.path.join(event.directory, event.name)
            if os.path.islink(path):
                scope = Scope.STRUCTURE  # There may be another directory to watch.
            elif not event.created or _is_whole(path):
                paths.add(path)
    return Hint(scope, frozenset(paths))


def _is_whole(path: str) -> bool:
    """A second name of a file that exists already comes without a write that would be closed."""
    try:
        return os.stat(path).st_nlink > 1
    except OSError:
        return False


def _is_there(folder: str) -> bool:
    return os.path.isdir(folder)


async def _set_after(first: asyncio.Event, second: asyncio.Event) -> None:
    await first.wait()
    second.set()


async def _next_by_watchfiles(folder: str, stop: asyncio.Event, longest_s: float) -> None:
    """Waits for a change, but not for ever: one that came before watching began would be missed."""
    watching = awatch(
        folder,
        watch_filter=None,
        step=10,
        debounce=200,
        stop_event=stop,
        rust_timeout=max(1, int(longest_s * 1000)),
        yield_on_timeout=True,
        force_polling=False,
        ignore_permission_denied=True,
    )
    async with contextlib.aclosing(watching) as found:
        async for _ in found:
            await _wait(stop, _SETTLE_S)
            return


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
