"""Says when to look at files again: whenever something happens in their folders, and once a second in any case."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Final

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from dragoman.beside import beside
from dragoman.inotify import Inotify

_log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)

_ANYWAY_S: Final = 1.0
_BETWEEN_S: Final = 0.05
"""A folder in which something happens all the time is not looked at more often."""
_MAX_LINKS: Final = 40

Folders = frozenset[Path]


async def looks(path: Path, folders: Callable[[], Folders]) -> AsyncGenerator[None, None]:
    """Yields whenever what `path` stands for may have changed, for ever.

    `folders` says where that would be noticed; it is asked again each time, in a thread. Some file systems tell of no
    changes, and some machines have no more watchers to give: once a second it yields all the same.
    """
    platform = sys.platform  # Not compared at once, which would have type checkers skip the other branch.
    happenings = _by_inotify if platform == "linux" else _by_watchfiles
    told = ""
    while True:
        try:
            watched = await beside(folders)
            # Editors and Kubernetes replace files rather than write them, so it is folders that are watched.
            async with contextlib.aclosing(happenings(watched)) as found:
                async for _ in found:
                    told = ""
                    yield
                    if await beside(folders) != watched:
                        break
            continue
        except FileNotFoundError:
            pass
        except (OSError, RuntimeError) as error:
            # A folder may be closed to us for a while.
            if str(error) != told:
                told = str(error)
                _log.warning("%s cannot be watched, and is looked at once a second: %s", path, error)
        await asyncio.sleep(_ANYWAY_S)
        yield


async def _by_inotify(folders: Folders) -> AsyncGenerator[None, None]:
    """Yields once they are watched, then after each happening. Folders that are not there are left out."""
    loop, happened = asyncio.get_running_loop(), asyncio.Event()
    notify = Inotify()

    def notice() -> None:
        # Until it is drained it would be readable, and the loop would turn for nothing.
        loop.remove_reader(notify.fd)
        happened.set()

    try:
        notify.watch(map(str, folders))
        while True:
            loop.add_reader(notify.fd, notice)
            looked = time.monotonic()
            yield
            with contextlib.suppress(TimeoutError):
                # Not wait_for, in which a cancellation is lost that comes with a happening: the last one often does.
                async with asyncio.timeout(_ANYWAY_S):
                    await happened.wait()
            await asyncio.sleep(looked + _BETWEEN_S - time.monotonic())
            happened.clear()
            while notify.read():
                pass
    finally:
        loop.remove_reader(notify.fd)
        notify.close()


async def _by_watchfiles(folders: Folders) -> AsyncGenerator[None, None]:
    """The same elsewhere; raises FileNotFoundError where a folder is not there."""
    between_ms, anyway_ms = int(_BETWEEN_S * 1000), int(_ANYWAY_S * 1000)
    async with contextlib.aclosing(
        awatch(
            *folders,
            debounce=between_ms,
            step=between_ms,
            rust_timeout=anyway_ms,
            yield_on_timeout=True,
            recursive=False,
        )
    ) as changes:
        async for _ in changes:
            yield


def folders_of(path: Path) -> Folders:
    """Returns the folders in which something happens when a file is replaced, or a link on the way to it is."""
    folders = {path.absolute().parent.resolve(), *folders_of_links(path)}
    return frozenset(folder for folder in folders if folder.is_dir())


def folders_of_links(path: Path) -> Iterator[Path]:
    """Yields the folder of each symbolic link on the way to a path, those that a link leads to included."""
    waiting = [path.absolute()]
    for _ in range(_MAX_LINKS):
        if not waiting:
            return
        for prefix in (*reversed(waiting[-1].parents), waiting.pop()):
            if prefix.is_symlink():
                yield prefix.parent.resolve()
                with contextlib.suppress(OSError):
                    waiting.append(prefix.parent.resolve() / prefix.readlink())
                    break
