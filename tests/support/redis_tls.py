"""TLS before a Redis: the server's own where its program can, else a relay that takes TLS (and plain text) for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.certificates import Authority, Certificate
from tests.support.ports import free_port
from tests.support.redis import RedisServer, redis_binary

_HANDSHAKE = 0x16
_CHUNK = 65_536


@functools.cache
def redis_speaks_tls() -> bool:
    """Returns whether the `redis-server` of the tests was built with TLS: then it misses a certificate."""
    command = [redis_binary(), "--port", "0", "--tls-port", str(free_port()), "--save", ""]
    tried = subprocess.run(command, capture_output=True, timeout=10, check=False)
    return b"No tls-cert-file configured" in tried.stdout


class TlsRelay:
    """Takes connections on `port`, with TLS or without, and relays them to a server on loopback."""

    def __init__(self, to: int, certificate: Certificate, *, client_ca: Authority | None = None) -> None:
        self.port = free_port()
        self._to = to
        self._folder = Path(tempfile.mkdtemp(prefix="dgm-"))
        self._client_ca = client_ca
        self._context = certificate.server_context(self._folder, client_ca=client_ca)
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener.setblocking(False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def present(self, certificate: Certificate) -> None:
        """Shows another certificate on connections from now on."""
        self._context = certificate.server_context(self._folder, client_ca=self._client_ca)

    def cut(self) -> None:
        """Breaks all connections."""
        for task in self._tasks:
            task.cancel()

    async def __aenter__(self) -> TlsRelay:
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._accepting is not None
        self._accepting.cancel()
        self.cut()
        await asyncio.gather(self._accepting, *self._tasks, return_exceptions=True)
        self._listener.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            task = asyncio.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                tls = self._context if await _peek(client) == _HANDSHAKE else None
                reader = asyncio.StreamReader()
                protocol = asyncio.StreamReaderProtocol(reader)
                transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
            except BaseException:
                client.close()
                raise
            # From here on the socket is the transport's to close.
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await self._relay(reader, writer)
            finally:
                transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await _either(_pipe(reader, up_writer), _pipe(up_reader, writer))
        finally:
            up_writer.close()


class TlsRedis(RedisServer):
    """A Redis that takes TLS on `tls_port`, plain text on `port`; clients show a certificate of `client_ca`."""

    def __init__(
        self, certificate: Certificate, *arguments: str, authority: Authority, client_ca: Authority | None = None
    ) -> None:
        super().__init__(*arguments)
        self.tls_port = free_port()
        self._certificate = certificate
        self._client_ca = client_ca
        self._stack = contextlib.AsyncExitStack()
        if redis_speaks_tls():
            certificate_file, key_file = certificate.write(self.folder, "server")
            ca_file = self.folder / "clients-ca.crt"
            ca_file.write_text((client_ca or authority).cert_pem)
            self._arguments = (
                *arguments,
                *("--tls-port", str(self.tls_port), "--tls-cert-file", str(certificate_file)),
                *("--tls-key-file", str(key_file), "--tls-ca-cert-file", str(ca_file)),
                *("--tls-auth-clients", "yes" if client_ca is not None else "no"),
            )

    async def __aenter__(self) -> TlsRedis:
        await super().__aenter__()
        if not redis_speaks_tls():
            relay = TlsRelay(self.port, self._certificate, client_ca=self._client_ca)
            self.tls_port = relay.port
            await self._stack.enter_async_context(relay)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        await super().__aexit__(kind, fault, trace)


async def _peek(client: socket.socket) -> int | None:
    """Returns the first byte that the client sends, and leaves it there."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(client, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(client)
    data = client.recv(1, socket.MSG_PEEK)
    return data[0] if data else None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


async def _either(*pipes: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(each) for each in pipes]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
