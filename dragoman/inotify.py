"""Linux's own file notification: at once, without polling, and it tells a finished write from one under way."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x1000000
_ISDIR: Final = 0x40000000
_MASK: Final = (
    _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
)
_STRUCTURAL: Final = _ISDIR | _DELETE_SELF | _MOVE_SELF
_HEADER: Final = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to an entry of a watched directory, or to the directory itself (no name)."""

    directory: str
    name: str
    created: bool = False
    """Made but perhaps not written yet; another event follows when the writer closes it."""
    structural: bool = False
    """Directories came or went."""
    lost: bool = False
    """Nothing that is known of any file can be relied on."""


class Inotify:
    """Watches directories (not what is below them). OSError where the system has no inotify or no watches left."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._directories: dict[int, str] = {}
        self._linked: set[int] = set()

    def close(self) -> None:
        """Ends all watches."""
        os.close(self.fd)

    def watch(self, directories: Iterable[str], linked: Iterable[str] = ()) -> None:
        """Watches these directories from now on; those that are gone are left out.

        What happens in a `linked` directory, where links lead to, may be about any file.
        """
        found: dict[int, str] = {}
        for directory in directories:
            # A directory that is reached by several paths has one number.
            found.setdefault(self._add(directory), directory)
        self._linked = {self._add(directory) for directory in linked}
        self._directories = {**dict.fromkeys(self._linked, ""), **found}

    def _add(self, directory: str) -> int:
        number: int = self._libc.inotify_add_watch(self.fd, os.fsencode(directory), _MASK)
        if number < 0 and ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
            raise OSError(ctypes.get_errno(), "inotify_add_watch", directory)
        return number

    def read(self) -> list[Event]:
        """What happened since the last call; nothing if nothing did."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at = 0
        while at < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
            if mask & _IGNORED:
                self._directories.pop(number, None)
            elif mask & _OVERFLOW or number in self._directories:
                lost = bool(mask & _OVERFLOW) or number in self._linked
                directory = self._directories.get(number, "")
                events.append(Event(directory, name, bool(mask & _CREATE), bool(mask & _STRUCTURAL), lost))
        return events
