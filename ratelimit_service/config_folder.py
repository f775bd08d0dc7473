"""Finds and reads the files that a path stands for: a file, or a folder, which may be swapped by symbolic links."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ratelimit_service.model import Fault
from ratelimit_service.yaml_fields import MAX_BYTES

SUFFIXES: Final = ("", ".yaml", ".yml", ".json")
"""Of a folder, files of these are read; none is what a key of a ConfigMap often has."""

State = frozenset[tuple[str, int, int, int, int]]
"""Tells whether files have changed: path, inode, size, and the times of content and of inode."""

_MAX_LEVELS: Final = 8
_MAX_FILES: Final = 10_000
_MAX_LINKS: Final = 40


def files_of(path: Path) -> list[Path]:
    """Returns the files that a path stands for, in the order in which they are read; raises OSError."""
    if not path.is_dir():
        return [path]
    return [file for file in _files_below(path) if file.suffix in SUFFIXES]


def passed_over(path: Path) -> list[Path]:
    """Returns the files of a folder that are not read, for their suffix; raises OSError."""
    return [file for file in _files_below(path) if file.suffix not in SUFFIXES] if path.is_dir() else []


def read(path: Path) -> tuple[dict[str, bytes], list[Fault]]:
    """Returns the contents of the files by their names, and a fault for each that cannot be read."""
    files: dict[str, bytes] = {}
    faults: list[Fault] = []
    found: list[Path] = []
    try:
        found = files_of(path)
    except OSError as error:
        faults.append(_unreadable(path, error))
    for file in found:
        try:
            with file.open("rb") as opened:
                files[str(file)] = opened.read(MAX_BYTES + 1)
        except OSError as error:
            faults.append(_unreadable(file, error))
    return files, faults


def state_of(path: Path) -> State:
    """Returns what differs once any of the files has changed."""
    found: set[tuple[str, int, int, int, int]] = set()
    with contextlib.suppress(OSError):
        for file in files_of(path):
            with contextlib.suppress(OSError):
                stat = file.stat()
                found.add((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return frozenset(found)


def watched(path: Path) -> frozenset[Path]:
    """Returns the folders in which something happens when a file changes, or a link on the way to it does."""
    folders = set(_folders_of_links(path))
    if path.is_dir():
        folders.add(path.resolve())
        with contextlib.suppress(OSError):
            folders.update(file.parent.resolve() for file in _files_below(path))
    else:
        folders.add(path.absolute().parent.resolve())
    return frozenset(folder for folder in folders if folder.is_dir())


def _folders_of_links(path: Path) -> Iterator[Path]:
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


def _files_below(path: Path) -> list[Path]:
    found: list[Path] = []
    for file in _walk(path, _MAX_LEVELS):
        found.append(file)
        if len(found) > _MAX_FILES:
            raise OSError(f"has more than {_MAX_FILES} files")
    return sorted(found)


def _walk(folder: Path, levels: int) -> Iterator[Path]:
    # What begins with a dot is none of ours: in a mounted ConfigMap those are the folders of which one is current.
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in found:
        if entry.is_dir():
            if levels > 0:
                yield from _walk(Path(entry.path), levels - 1)
        elif entry.is_file() or entry.is_symlink():
            yield Path(entry.path)


def _unreadable(path: Path, error: OSError) -> Fault:
    return Fault(str(path), 0, "", error.strerror or str(error) or "cannot be read")
