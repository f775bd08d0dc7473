"""Finds and reads the files that a path stands for: a file, or a folder, which may be swapped by symbolic links."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dragoman.file_watch import Folders, folders_of, folders_of_links
from ratelimit_service.model import Fault
from ratelimit_service.yaml_fields import MAX_BYTES

SUFFIXES: Final = ("", ".yaml", ".yml", ".json")
"""Of a folder, files of these are read; none is what a key of a ConfigMap often has."""

State = frozenset[tuple[str, int, int, int, int]]
"""Tells whether files have changed: path, inode, size, and the times of content and of inode."""

MAX_TOTAL_BYTES: Final = 4 * MAX_BYTES
_MAX_LEVELS: Final = 8
_MAX_FILES: Final = 10_000


def files_of(path: Path) -> list[Path]:
    """Returns the files that a path stands for, in the order in which they are read; raises OSError."""
    if not path.is_dir():
        return [path]
    return [file for file in _files_below(path) if file.suffix in SUFFIXES]


def passed_over(path: Path) -> list[Path]:
    """Returns the files of a folder that are not read, for their suffix; raises OSError."""
    return [file for file in _files_below(path) if file.suffix not in SUFFIXES] if path.is_dir() else []


def read(path: Path, *, streams: bool = False) -> tuple[dict[str, bytes], list[Fault]]:
    """Returns the contents of the files by their names, and a fault for each that cannot be read.

    With `streams`, `path` may be a pipe or a device, which is read to its end, however long that takes.
    """
    files: dict[str, bytes] = {}
    faults: list[Fault] = []
    found: list[Path] = []
    try:
        found = files_of(path)
    except OSError as error:
        faults.append(_unreadable(path, error))
    size = 0
    for file in found:
        try:
            content = files[str(file)] = _content(file, streams=streams and file == path)
        except OSError as error:
            faults.append(_unreadable(file, error))
            continue
        size += len(content)
        if size > MAX_TOTAL_BYTES:
            # A folder that is not meant, such as the root of a disk.
            return {}, [Fault(str(path), 0, "", f"has more than {MAX_TOTAL_BYTES} bytes in its files")]
    return files, faults


def _content(file: Path, *, streams: bool) -> bytes:
    # Otherwise a pipe would be waited for until somebody writes to it.
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if streams else os.O_NONBLOCK)
    with os.fdopen(os.open(file, flags), "rb") as opened:
        if not streams and not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError("is neither a file nor a folder")
        return opened.read(MAX_BYTES + 1)


def state_of(path: Path) -> State:
    """Returns what differs once any of the files has changed."""
    found: set[tuple[str, int, int, int, int]] = set()
    with contextlib.suppress(OSError):
        for file in files_of(path):
            try:
                seen = file.stat()
                found.add((str(file), seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
            except OSError:
                found.add((str(file), 0, 0, 0, 0))
    return frozenset(found)


def watched(path: Path) -> Folders:
    """Returns the folders in which something happens when a file changes, or a link on the way to it does."""
    if not path.is_dir():
        return folders_of(path)
    folders = {path.resolve(), *folders_of_links(path)}
    with contextlib.suppress(OSError):
        folders.update(file.parent.resolve() for file in _files_below(path))
    return frozenset(folder for folder in folders if folder.is_dir())


def _files_below(path: Path) -> list[Path]:
    found: list[Path] = []
    for file in _walk(path, _MAX_LEVELS, frozenset({_identity(path.stat())})):
        found.append(file)
        if len(found) > _MAX_FILES:
            raise OSError(f"has more than {_MAX_FILES} files")
    return sorted(found)


def _walk(folder: Path, levels: int, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    # What begins with a dot is none of ours: in a mounted ConfigMap those are the folders of which one is current.
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in found:
        inside = _folder(entry)
        if inside is None:
            if entry.is_symlink() or entry.is_file():
                yield Path(entry.path)
        elif levels > 0 and inside not in above:
            # A link to where we come from leads to nothing new.
            yield from _walk(Path(entry.path), levels - 1, above | {inside})


def _folder(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Returns what tells a folder from others; None for what is none, such as a link that leads nowhere."""
    try:
        return _identity(entry.stat()) if entry.is_dir() else None
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _unreadable(path: Path, error: OSError) -> Fault:
    return Fault(str(error.filename or path), 0, "", error.strerror or str(error) or "cannot be read")
