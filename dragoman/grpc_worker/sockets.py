"""Listening sockets: Unix ones with the mode they should have from the start, and never somebody else's path."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from dragoman.grpc_worker.api import Address

UNIX_MODE = 0o600
BACKLOG = 1024


def bind(address: Address, *, unix_mode: int = UNIX_MODE) -> socket.socket:
    """A listening, non-blocking socket. Raises OSError (EADDRINUSE: somebody listens there), naming the address."""
    try:
        listener = _bind_unix(address, unix_mode) if address.is_unix else _bind_tcp(address)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def bound_address(listener: socket.socket, asked: Address) -> Address:
    """`asked` with the port that the system chose."""
    return asked if asked.is_unix else Address(host=asked.host, port=int(listener.getsockname()[1]))


def clear_stale(path: str) -> None:
    """Removes a Unix socket that nobody listens on; raises OSError if somebody does, or if it is no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(path)
    # EAGAIN: the other side's backlog is full, so there is another side.
    if result in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise OSError(errno.EADDRINUSE, "another process listens on it")
    if result not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(result, os.strerror(result))
    Path(path).unlink(missing_ok=True)


def unlink_own(path: str, inode: int) -> None:
    """Removes the socket unless another process has meanwhile put its own in place."""
    with contextlib.suppress(OSError):
        if os.lstat(path).st_ino == inode:
            os.unlink(path)


def _bind_unix(address: Address, mode: int) -> socket.socket:
    clear_stale(address.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address.path)
        # Before listen() nobody can connect, so there is no instant at which the mode is too wide.
        os.chmod(address.path, mode)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind_tcp(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
