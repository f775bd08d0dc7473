"""Free ports for test servers, handed out so that no other test process gets the same."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below the range that the kernel gives to outgoing connections, which could take a port between its choice and its
# use; above what file mode adds to ports under 1024.
_FIRST, _LAST = 20_000, 31_999
_HELD: dict[int, int] = {}


def free_port() -> int:
    """Returns a port that nothing listens on and that no other caller, in any process, gets while this one lives."""
    folder = _folder()
    start = random.randrange(_FIRST, _LAST)
    for step in range(_LAST - _FIRST):
        port = _FIRST + (start - _FIRST + step) % (_LAST - _FIRST)
        if port not in _HELD and _claim(folder / str(port), port):
            return port
    raise RuntimeError("every test port is taken")


def free_port_with(offset: int) -> int:
    """Returns a free port; the one `offset` above it is free too, and as safe from other callers."""
    for _ in range(_LAST - _FIRST):
        port = free_port()
        if port + offset <= _LAST and _claim(_folder() / str(port + offset), port + offset):
            return port
    raise RuntimeError("no two test ports are so far apart")


def free_ports(count: int) -> list[int]:
    """Returns `count` different free ports."""
    return [free_port() for _ in range(count)]


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"dragoman-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _claim(path: Path, port: int) -> bool:
    # The lock lasts as long as this process: a port is not given again within a run, so a late client of one test
    # cannot reach the server of the next.
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    if not _is_free(port):
        os.close(lock)
        return False
    _HELD[port] = lock
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
