"""Says when to look at a folder again: at which manifests, or at everything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, Iterable
from typing import Final

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from controlplane.sources.folder import is_manifest, list_folder
from controlplane.sources.inotify import Event, Inotify

_log = logging.getLogger(__name__)

Hint = frozenset[str] | None
"""Paths of manifests that may have changed; EVERYTHING if that is not enough."""
EVERYTHING: Final = None

# While the folder itself is gone there is nothing to watch.
_RETRY_S: Final = 1.0
# Where finished writes cannot be told from those under way, a file must have been left alone for so long.
_SETTLE_S: Final = 0.05


async def hints(folder: str, stop: asyncio.Event, *, polling: bool = False) -> AsyncGenerator[Hint, None]:
    """Yields EVERYTHING once watching has begun, then a hint for each change, until `stop` is set.

    Linux: inotify. Elsewhere, and if inotify has no watches left: watchfiles. With `polling`, or with
    WATCHFILES_FORCE_POLLING=1 in the environment: watchfiles looking several times a second, for network file systems
    that tell nobody of changes.
    """
    polling = polling or os.environ.get("WATCHFILES_FORCE_POLLING", "") not in ("", "0", "false", "disable")
    if sys.platform == "linux" and not polling:
        try:
            async with contextlib.aclosing(_by_inotify(folder, stop)) as found:
                async for hint in found:
                    yield hint
        except OSError as error:
            _log.warning("cannot watch with inotify, falling back to polling", extra={"error": str(error)})
            polling = True
    while not stop.is_set():
        async with contextlib.aclosing(_by_watchfiles(folder, stop, polling)) as found:
            async for hint in found:
                yield hint


async def _by_inotify(folder: str, stop: asyncio.Event) -> AsyncGenerator[Hint, None]:
    loop = asyncio.get_running_loop()
    notify, wake = Inotify(), asyncio.Event()
    stopping = asyncio.create_task(_set_after(stop, wake))
    loop.add_reader(notify.fd, wake.set)
    try:
        hint: Hint = EVERYTHING
        while not stop.is_set():
            if hint is None:
                listing = list_folder(folder)
                notify.watch(listing.directories, listing.linked)
            if hint is None or hint:
                yield hint
            gone = not _is_there(folder)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), _RETRY_S if gone else None)
            wake.clear()
            hint = EVERYTHING if gone else _hint(_drain(notify))
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
    for event in events:
        # Kubernetes swaps the link `..data` when a ConfigMap changes.
        if event.structural or event.name.startswith(".."):
            return EVERYTHING
        if not is_manifest(event.name):
            continue
        path = os.path.join(event.directory, event.name)
        if not event.created or _is_whole(path):
            paths.add(path)
        if os.path.islink(path):
            return EVERYTHING
    return frozenset(paths)


def _is_whole(path: str) -> bool:
    """A link to a file that exists already comes without a write that would be closed."""
    try:
        return os.path.islink(path) or os.stat(path).st_nlink > 1
    except OSError:
        return False


def _is_there(folder: str) -> bool:
    return os.path.isdir(folder)


async def _set_after(first: asyncio.Event, second: asyncio.Event) -> None:
    await first.wait()
    second.set()


async def _by_watchfiles(folder: str, stop: asyncio.Event, polling: bool) -> AsyncGenerator[Hint, None]:
    if not _is_there(folder):
        yield EVERYTHING
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _RETRY_S)
        return
    changes = awatch(
        folder,
        watch_filter=None,
        step=10,
        debounce=200,
        stop_event=stop,
        rust_timeout=1000,
        yield_on_timeout=True,
        force_polling=polling,
        poll_delay_ms=200,
        ignore_permission_denied=True,
    )
    yield EVERYTHING
    async for found in changes:
        if found:
            await asyncio.sleep(_SETTLE_S)
            yield EVERYTHING
        elif not _is_there(folder):
            return
