"""Sends lines to a collector: over UDP in datagrams that are not taken apart on the way, or over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from ratelimit_service.statsd.target import Dialect, StatsdTarget

T = TypeVar("T")

MAX_DATAGRAM: Final = 1432
"""Bytes that pass through an Ethernet whole, with all headers."""
CONNECT_S: Final = 1.5
_WRITE_S: Final = 2.0
_RESOLVE_AGAIN_S: Final = 30.0
_AT_ONCE: Final = 16
"""Datagrams between which a collector has time to read: its buffer is small."""
_PAUSE_S: Final = 0.01


class Sink(Protocol):
    """Where lines go."""

    async def send(self, lines: Sequence[bytes]) -> None:
        """Sends all of the lines; raises OSError where none of them, or not all of them, can have come."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def sink_of(target: StatsdTarget) -> Sink:
    """Returns what sends to a collector; it connects when there is something to send."""
    return TcpSink(target) if target.dialect is Dialect.TCP else UdpSink(target)


class UdpSink:
    """Fire and forget; the name of the collector is looked up again from time to time, for it may have moved."""

    def __init__(self, target: StatsdTarget) -> None:
        self._target = target
        self._socket: socket.socket | None = None
        self._resolved_at = 0.0
        self._sent = 0

    async def send(self, lines: Sequence[bytes]) -> None:
        for datagram in datagrams(lines):
            await self._send(await self._connected(), datagram)
            self._sent += 1
            if not self._sent % _AT_ONCE:
                await asyncio.sleep(_PAUSE_S)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _connected(self) -> socket.socket:
        now = asyncio.get_running_loop().time()
        if self._socket is not None and now - self._resolved_at < _RESOLVE_AGAIN_S:
            return self._socket
        family, kind, protocol, address = await _resolved(self._target)
        self.close()
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            made.connect(address)
        except BaseException:
            made.close()
            raise
        self._socket, self._resolved_at = made, now
        return made

    async def _send(self, to: socket.socket, datagram: bytes) -> None:
        try:
            with contextlib.suppress(ConnectionRefusedError):
                to.send(datagram)
                return
            # What was refused is one that was sent before: this one has not been sent yet.
            to.send(datagram)
        except BlockingIOError:
            # Nobody waits for a full buffer of our own: what does not fit is lost, as it would be on the way.
            await asyncio.sleep(_PAUSE_S)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                # A line that nobody could be sent: the others are.
                return
            self.close()
            raise


class TcpSink:
    """One connection, made anew when it is lost."""

    def __init__(self, target: StatsdTarget) -> None:
        self._target = target
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, lines: Sequence[bytes]) -> None:
        try:
            writer = await self._connected()
            writer.write(b"".join(lines))
            # Not `wait_for`, which before Python 3.12 may lose that its task was cancelled.
            async with asyncio.timeout(_WRITE_S):
                await writer.drain()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            # Also where it has not taken what was written: nobody waits for that.
            self._connection[1].close()
            if self._connection[1].transport.get_write_buffer_size():
                self._connection[1].transport.abort()
            self._connection = None

    async def _connected(self) -> asyncio.StreamWriter:
        if self._connection is not None and self._connection[0].at_eof():
            self.close()
        if self._connection is None:
            opened = asyncio.open_connection(self._target.host, self._target.port, limit=4096)
            async with asyncio.timeout(CONNECT_S):
                self._connection = await _valid(opened)
            # So that `drain` returns only when the system has all of it.
            self._connection[1].transport.set_write_buffer_limits(high=0)
        return self._connection[1]


def datagrams(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yields the lines in datagrams; one that is longer by itself is in one of its own."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > MAX_DATAGRAM:
            yield b"".join(part)
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield b"".join(part)


async def _resolved(target: StatsdTarget) -> tuple[int, int, int, tuple[object, ...]]:
    loop = asyncio.get_running_loop()
    looking = loop.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    async with asyncio.timeout(CONNECT_S):
        found = await _valid(looking)
    family, kind, protocol, _, address = found[0]
    return family, kind, protocol, address


async def _valid(work: Awaitable[T]) -> T:
    """Has a name that cannot be one be an error as any other."""
    try:
        return await work
    except UnicodeError:
        raise OSError("the host's name is none") from None
