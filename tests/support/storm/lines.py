"""Connections of clients: HTTP/1.1 and HTTP/2, in clear text and in TLS, that tell what they were answered."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import ngh2

from tests.support.http import Connection
from tests.support.storm.judge import Ask


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Line(Protocol):
    """A connection; an OSError or TimeoutError of `ask` says that no whole response came.

    `envoy` is the name of who holds its other end, once that was asked for.
    """

    protocol: str
    envoy: str

    @property
    def local_port(self) -> int: ...
    @property
    def open(self) -> bool: ...
    async def ask(self, ask: Ask, *, within_s: float) -> Reply: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Http1Line:
    """One request at a time."""

    connection: Connection
    protocol: str = "HTTP/1.1"
    envoy: str = ""

    @staticmethod
    async def to(port: int, *, tls: ssl.SSLContext | None = None, sni: str | None = None) -> Http1Line:
        return Http1Line(await Connection.to(port, tls=tls, sni=sni))

    @property
    def local_port(self) -> int:
        return self.connection.local_port

    @property
    def open(self) -> bool:
        return self.connection.open

    async def ask(self, ask: Ask, *, within_s: float) -> Reply:
        response = await self.connection.request(ask.path, host=ask.host, headers=ask.headers, within_s=within_s)
        return Reply(response.status, dict(response.headers), response.body)

    def close(self) -> None:
        self.connection.close()


@dataclass(slots=True)
class _Stream:
    done: asyncio.Future[Reply]
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)


class Http2Line(asyncio.Protocol):
    """Any number of requests at a time; not open any more once the peer has said that it goes away."""

    protocol = "HTTP/2"

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme.encode()
        self._session = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
        self._streams: dict[int, _Stream] = {}
        self._transport: asyncio.Transport | None = None
        self._kept = True
        self.envoy = ""
        self.local_port = 0

    @staticmethod
    async def to(port: int, *, tls: ssl.SSLContext | None = None, sni: str | None = None) -> Http2Line:
        loop = asyncio.get_running_loop()
        scheme = "http" if tls is None else "https"
        _, line = await loop.create_connection(
            lambda: Http2Line(scheme), "127.0.0.1", port, ssl=tls, server_hostname=sni if tls is not None else None
        )
        return line

    @property
    def open(self) -> bool:
        return self._kept and self._transport is not None

    async def ask(self, ask: Ask, *, within_s: float) -> Reply:
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        more = [(name.encode(), value.encode()) for name, value in ask.headers.items()]
        pseudo = [(b":method", b"GET"), (b":scheme", self._scheme), (b":authority", ask.host.encode())]
        try:
            number = self._session.send_request([*pseudo, (b":path", ask.path.encode()), *more], end_stream=True)
        except ngh2.NGH2Error as fault:
            raise ConnectionError(str(fault)) from fault
        stream = _Stream(asyncio.get_running_loop().create_future())
        self._streams[number] = stream
        self._flush()
        try:
            return await asyncio.wait_for(stream.done, within_s)
        finally:
            self._streams.pop(number, None)

    def close(self) -> None:
        self._kept = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.local_port = int(transport.get_extra_info("sockname")[1])
        self._session.initiate_connection({ngh2.Setting.ENABLE_PUSH: 0})
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._kept = False
        self._fail(ConnectionResetError(f"the peer closed the connection: {exc or 'without a word'}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._session.receive_data(data)
            for event in self._session.events():
                self._take(event)
            self._flush()
        except ngh2.NGH2Error as fault:
            self._fail(ConnectionError(str(fault)))
            self.close()

    def _take(self, event: ngh2.Event) -> None:
        if isinstance(event, ngh2.GoAwayReceived):
            self._kept = False
            return
        stream = self._streams.get(getattr(event, "stream_id", -1))
        if stream is None or stream.done.done():
            return
        if isinstance(event, ngh2.ResponseReceived):
            stream.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, ngh2.DataReceived):
            stream.body += event.data
        elif isinstance(event, ngh2.StreamReset):
            stream.done.set_exception(ConnectionResetError(f"the stream was reset ({event.error_code})"))
            return
        elif isinstance(event, ngh2.StreamClosed):
            if ":status" not in stream.headers:
                stream.done.set_exception(ConnectionResetError(f"the stream was closed ({event.error_code})"))
            return
        if getattr(event, "end_stream", False):
            stream.done.set_result(Reply(int(stream.headers[":status"]), stream.headers, bytes(stream.body)))

    def _fail(self, fault: Exception) -> None:
        for stream in self._streams.values():
            if not stream.done.done():
                stream.done.set_exception(fault)

    def _flush(self) -> None:
        if self._transport is not None and (data := self._session.data_to_send()):
            self._transport.write(data)


def alpn(context: ssl.SSLContext, *protocols: str) -> ssl.SSLContext:
    """Returns the context, offering these protocols."""
    context.set_alpn_protocols(protocols)
    return context
