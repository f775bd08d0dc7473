"""A bounded load over kept-alive connections: as many requests as are asked for, one in flight a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast


@dataclass(frozen=True, slots=True)
class Load:
    """What a load did: requests answered 200, requests answered otherwise, seconds."""

    answered: int
    failed: int
    took_s: float

    @property
    def per_s(self) -> float:
        return self.answered / self.took_s


async def load(
    port: int,
    *,
    host: str,
    path: str,
    requests: int,
    connections: int = 16,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Load:
    """Sends `requests` GET requests to loopback; the answers must be small, with a length and without chunks."""
    loop = asyncio.get_running_loop()
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n".encode()
    shared = _Shared(request, left=requests, done=loop.create_future(), open=connections)
    began_at = time.perf_counter()
    pairs = [await loop.create_connection(lambda: _Client(shared), "127.0.0.1", port) for _ in range(connections)]
    async with asyncio.timeout(60):
        await shared.done
    took_s = time.perf_counter() - began_at
    for transport, _ in pairs:
        transport.close()
    return Load(shared.answered, shared.failed, took_s)


@dataclass
class _Shared:
    request: bytes
    left: int
    done: asyncio.Future[None]
    open: int
    answered: int = 0
    failed: int = 0


class _Client(asyncio.Protocol):
    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._buffer[:head].lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head + 4 + length:
            return
        if self._buffer.startswith(b"HTTP/1.1 200"):
            self._shared.answered += 1
        else:
            self._shared.failed += 1
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shared.done.done():
            self._shared.failed += 1
            self._end()

    def _send(self) -> None:
        if self._shared.left <= 0:
            self._end()
            return
        self._shared.left -= 1
        assert self._transport is not None
        self._transport.write(self._shared.request)

    def _end(self) -> None:
        self._shared.open -= 1
        if self._shared.open == 0 and not self._shared.done.done():
            self._shared.done.set_result(None)
