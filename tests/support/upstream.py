"""A backend on loopback that echoes requests as JSON and can be told to be slow, to fail, or to answer otherwise."""

from __future__ import annotations

import asyncio
import json
import ssl
from types import TracebackType
from typing import Any, cast

from dragoman.echo import Answer, Headers, HttpProtocol, Request, Responder, echo
from tests.support.http2 import Http2Protocol
from tests.support.ports import free_port

__all__ = ["Answer", "Request", "Upstream"]


class Upstream:
    """`async with Upstream("a") as upstream`: a server on `upstream.port`, or on a Unix socket.

    It speaks HTTP/1.1, or with `http2` HTTP/2 alone (in clear text with prior knowledge).

    Every request is kept in `requests` (the last 10,000) and counted in `count`.
    """

    def __init__(
        self,
        name: str = "echo",
        *,
        port: int | None = None,
        unix_path: str | None = None,
        tls: ssl.SSLContext | None = None,
        respond: Responder | None = None,
        http2: bool = False,
    ) -> None:
        self.name = name
        self.port = 0 if unix_path else (port or free_port())
        self.unix_path = unix_path
        self.requests: list[Request] = []
        self.count = 0
        self.connections = 0
        self._tls = tls
        self._http2 = http2
        self._respond = respond or echo(name)
        self._delay_s = 0.0
        self._failures: list[Answer] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Upstream:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> dict[str, Any]:
        """Where it listens, as an Envoy `Address`."""
        if self.unix_path is not None:
            return {"pipe": {"path": self.unix_path}}
        return {"socket_address": {"address": "127.0.0.1", "port_value": self.port}}

    async def start(self) -> None:
        """Listens; after `stop` it listens again at the same place."""
        loop = asyncio.get_running_loop()
        if self.unix_path is not None:
            self._server = await loop.create_unix_server(self._protocol, self.unix_path, ssl=self._tls)
        else:
            self._server = await loop.create_server(self._protocol, "127.0.0.1", self.port, ssl=self._tls, backlog=1024)

    def stop(self) -> None:
        """Stops listening and cuts every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in tuple(self._open):
            transport.abort()

    def be_slow(self, delay_s: float) -> None:
        """From now on every answer comes this much later."""
        self._delay_s = delay_s

    def fail(self, times: int, status: int = 503) -> None:
        """Answers the next requests with an error."""
        self._failures += [Answer(status, b"told to fail\n")] * times

    def reset(self, times: int) -> None:
        """Cuts the connection at the next requests."""
        self._failures += [Answer(reset=True)] * times

    def stall(self, times: int, delay_s: float) -> None:
        """Answers the next requests this much later."""
        self._failures += [Answer(200, b"late\n", delay_s=delay_s)] * times

    def answer(self, status: int = 200, body: bytes | str = b"", headers: Headers = ()) -> None:
        """From now on gives this fixed answer; `echo` brings the description back."""
        fixed = Answer(status, body.encode() if isinstance(body, str) else body, headers)
        self._respond = lambda request: fixed

    def answer_json(self, value: Any) -> None:
        """From now on answers with this JSON document."""
        self.answer(body=json.dumps(value), headers=(("content-type", "application/json"),))

    def echo(self) -> None:
        """From now on describes each request, as at the start."""
        self._respond = echo(self.name)

    def _protocol(self) -> asyncio.Protocol:
        return _Recorded(Http2Protocol(self._handle) if self._http2 else HttpProtocol(self._handle), self)

    def _handle(self, request: Request) -> Answer:
        self.count += 1
        if len(self.requests) >= 10_000:
            del self.requests[:5_000]
        self.requests.append(request)
        answer = self._failures.pop(0) if self._failures else self._respond(request)
        if self._delay_s:
            return Answer(answer.status, answer.body, answer.headers, answer.delay_s + self._delay_s, answer.reset)
        return answer

    def opened(self, transport: asyncio.Transport) -> None:
        """Called by the protocol for each connection."""
        self.connections += 1
        self._open.add(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        """Called by the protocol when a connection is gone."""
        self._open.discard(transport)


class _Recorded(asyncio.Protocol):
    """Tells an upstream of its connections, and leaves the rest to another protocol."""

    def __init__(self, inner: asyncio.Protocol, upstream: Upstream) -> None:
        self._inner = inner
        self._upstream = upstream
        self._own: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._own = cast("asyncio.Transport", transport)
        self._upstream.opened(self._own)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        if self._own is not None:
            self._upstream.closed(self._own)
