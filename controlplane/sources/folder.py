"""The manifests of a folder: which files count, and which directories to look at."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SUFFIXES = (".yaml", ".yml", ".json")

Signature = tuple[int, int, int, int]
"""Device, inode, size and time of change: a file of the same signature has the same content."""


@dataclass(slots=True)
class Listing:
    """What a walk of the folder found."""

    files: dict[str, Signature] = field(default_factory=dict[str, Signature])
    """Manifests by their path, that of the folder included, in the order of a walk."""
    directories: list[str] = field(default_factory=list[str])
    """The folder and what is below it."""
    linked: list[str] = field(default_factory=list[str])
    """Directories of the files that links lead to."""
    unreadable: list[str] = field(default_factory=list[str])
    """Directories that could not be listed."""


def is_manifest(name: str) -> bool:
    """Whether a file of this name counts: the suffix tells; hidden files and what editors leave behind do not."""
    return name.endswith(SUFFIXES) and not name.startswith((".", "#", "~"))


def sign(path: str) -> Signature | None:
    """The signature of a regular file, behind links if need be; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_size, max(found.st_mtime_ns, found.st_ctime_ns))


def list_folder(folder: str) -> Listing:
    """All manifests below a folder. Links are followed, each directory is visited once, hidden ones never."""
    listing = Listing()
    _visit(folder, listing, set(), with_files=True)
    return listing


def list_directories(folder: str) -> Listing:
    """The same without looking at every file: those that are no links are left out."""
    listing = Listing()
    _visit(folder, listing, set(), with_files=False)
    return listing


def _visit(path: str, listing: Listing, seen: set[tuple[int, int]], *, with_files: bool) -> None:
    try:
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        listing.unreadable.append(path)
        return
    listing.directories.append(path)
    for entry in _visible(entries):
        if _is_directory(entry):
            _visit(entry.path, listing, seen, with_files=with_files)
        elif not is_manifest(entry.name) or not (with_files or entry.is_symlink()):
            continue
        elif (signature := sign(entry.path)) is not None:
            listing.files[entry.path] = signature
            if entry.is_symlink():
                listing.linked.append(os.path.dirname(os.path.realpath(entry.path)))


def is_big(folder: str, *, files: int, size: int) -> bool:
    """Whether there are so many manifests below a folder, or so many bytes in them; soon told of any folder."""
    for path in _files_below(folder):
        signature = sign(path)
        if signature is not None:
            files -= 1
            size -= signature[2]
        if files <= 0 or size <= 0:
            return True
    return False


def _files_below(folder: str) -> Iterator[str]:
    """Manifests, without those in linked directories."""
    try:
        with os.scandir(folder) as found:
            for entry in _visible(found):
                if entry.is_dir(follow_symlinks=False):
                    yield from _files_below(entry.path)
                elif is_manifest(entry.name):
                    yield entry.path
    except OSError:
        return


def _visible(entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in entries if not entry.name.startswith("."))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
