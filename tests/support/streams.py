"""Servers and clients of bare connections and datagrams; a server sends each line or datagram back behind its name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import cast

from tests.support.ports import free_port


class StreamServer:
    """`async with StreamServer("a") as server`: on `server.port`, in clear text or with TLS. A client's EOF ends it."""

    def __init__(self, name: str, *, tls: ssl.SSLContext | None = None, port: int | None = None) -> None:
        self.name = name
        self.port = port or free_port()
        self.connections = 0
        self._tls = tls
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> StreamServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                writer.write(self.name.encode() + b" " + line)
                await writer.drain()
            writer.write(b"bye\n")
            await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()


class Stream:
    """A connection: `async with await Stream.to(port) as stream`. What is not answered is a ConnectionError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(
        cls, port: int, *, tls: ssl.SSLContext | None = None, sni: str | None = None, within_s: float = 5.0
    ) -> Stream:
        """Connects; with TLS, as the name `sni`."""
        opened = asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=sni if tls else None)
        return cls(*await asyncio.wait_for(opened, within_s))

    @property
    def names(self) -> set[str]:
        """The names in the certificate that was shown."""
        certificate = self.writer.get_extra_info("peercert")
        return {name for _, name in certificate["subjectAltName"]}

    async def ask(self, text: str = "hello", *, within_s: float = 5.0) -> str:
        """Sends a line; returns the line that comes back."""
        self.writer.write(text.encode() + b"\n")
        answer = await asyncio.wait_for(self.reader.readline(), within_s)
        if not answer:
            raise ConnectionResetError("the connection was closed")
        return answer.decode().strip()

    def close(self) -> None:
        self.writer.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def ask_stream(
    port: int, text: str = "hello", *, tls: ssl.SSLContext | None = None, sni: str | None = None
) -> str:
    """Asks on a connection of its own."""
    async with await Stream.to(port, tls=tls, sni=sni) as stream:
        return await stream.ask(text)


class DatagramServer:
    """`async with DatagramServer("a") as server`: on `server.port`; `peers` has where datagrams came from."""

    def __init__(self, name: str, *, port: int | None = None) -> None:
        self.name = name
        self.port = port or free_port()
        self.peers: Counter[tuple[str, int]] = Counter()
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> DatagramServer:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answering(self), local_addr=("127.0.0.1", self.port)
        )
        self._transport = transport
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None
        self._transport.close()


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, server: DatagramServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._server.peers[addr] += 1
        self._transport.sendto(self._server.name.encode() + b" " + data, addr)


class Datagrams:
    """A client with one address of its own, so that all it sends is one session."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def ask(self, text: str = "hello", *, within_s: float = 2.0) -> str:
        """Sends a datagram; returns the one that comes back. Raises TimeoutError, which is an OSError, for none."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, text.encode())
        return (await asyncio.wait_for(loop.sock_recv(self._socket, 65535), within_s)).decode()


async def ask_datagram(port: int, text: str = "hello", *, within_s: float = 2.0) -> str:
    """Asks from an address of its own."""
    with Datagrams(port) as client:
        return await client.ask(text, within_s=within_s)


async def tally(ask: Callable[[], Awaitable[str]], count: int, *, at_once: int = 10) -> Counter[str]:
    """Asks many times; counts who answered by the first word, and as `nobody` what had no answer."""
    found: Counter[str] = Counter()
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            try:
                found[(await ask()).partition(" ")[0]] += 1
            except OSError:
                found["nobody"] += 1

    await asyncio.gather(*(work() for _ in range(at_once)))
    return found
