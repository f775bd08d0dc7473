"""Says when to look at files again: whenever something happens in their folders, and once a second in any case."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Final

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

_log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)

_ANYWAY_S: Final = 1.0
_MAX_LINKS: Final = 40

Folders = frozenset[Path]


async def looks(path: Path, folders: Callable[[], Folders]) -> AsyncGenerator[None, None]:
    """Yields whenever what `path` stands for may have changed, for ever.

    `folders` says where that would be noticed; it is asked again each time, in a thread. Some file systems tell of no
    changes, and some machines have no more watchers to give: once a second it yields all the same.
    """
    told = ""
    while True:
        watched = await asyncio.to_thread(folders)
        try:
            # Editors and Kubernetes replace files rather than write them, so it is folders that are watched.
            async with contextlib.aclosing(
                awatch(
                    *watched,
                    debounce=50,
                    step=5,
                    rust_timeout=int(_ANYWAY_S * 1000),
                    yield_on_timeout=True,
                    recursive=False,
                )
            ) as changes:
                async for _ in changes:
                    told = ""
                    yield
                    if await asyncio.to_thread(folders) != watched:
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
