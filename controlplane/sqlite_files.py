"""Files of SQLite that are a help and not a source: opened for their owner alone, and put aside where they are bad."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_MODE: Final = 0o600
_WAIT_S: Final = 2.0
_ASK_AGAIN_S: Final = 0.01
_BESIDE: Final = ("-wal", "-shm")


def connect(path: Path) -> sqlite3.Connection:
    """Opens a file, which is made where there is none. Raises OSError or sqlite3.Error."""
    _claim(path, os.O_RDWR | os.O_CREAT)
    for suffix in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            _claim(path.with_name(path.name + suffix), os.O_RDWR)
    db = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
    try:
        _write_ahead(db)
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _claim(path: Path, flags: int) -> None:
    """Sees to it that a file is its owner's alone; one that was there may be of a wider mode."""
    descriptor = os.open(path, flags, _MODE)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & ~_MODE == 0:
            return
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            _log.warning("%s could be read by others: its mode was %04o", path, mode)
        os.fchmod(descriptor, _MODE)
    except PermissionError as fault:
        _log.warning("%s is not made private, for it is another user's: %s", path, fault)
    finally:
        os.close(descriptor)


def _write_ahead(db: sqlite3.Connection) -> None:
    """Sets the mode. Where another process does so just now, SQLite does not wait for it, as it does otherwise."""
    latest = time.monotonic() + _WAIT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
        time.sleep(_ASK_AGAIN_S)


def is_bad(fault: sqlite3.Error) -> bool:
    """Whether what is in a file is at fault: it will be tomorrow, too.

    It is not where the file is busy, or cannot be read, written or opened: what it has may be good, and in use.
    """
    if not isinstance(fault, sqlite3.OperationalError):
        return isinstance(fault, sqlite3.DatabaseError)
    # A table that is not there is a mere "error"; text that is not UTF-8 is found by Python, and has no code.
    return getattr(fault, "sqlite_errorcode", None) in (None, sqlite3.SQLITE_ERROR)


def put_aside(path: Path) -> Path:
    """Moves a bad file out of the way; returns where it is. Raises OSError."""
    aside = path.with_name(f"{path.name}.unreadable")
    os.replace(path, aside)
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside
