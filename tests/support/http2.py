"""The HTTP/2 side of a test's backend: cleartext with prior knowledge (h2c), or by ALPN."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import ngh2

from dragoman.echo import Answer, Request, Responder


@dataclass(slots=True)
class _Stream:
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)


class Http2Protocol(asyncio.Protocol):
    """One connection; requests are answered as soon as they are whole, in any order."""

    def __init__(self, respond: Responder) -> None:
        self._respond = respond
        self._session = ngh2.Connection(ngh2.Role.SERVER, ngh2.Configuration())
        self._streams: dict[int, _Stream] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._session.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for timer in self._timers:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._session.receive_data(data)
            for event in self._session.events():
                self._handle(event)
        except ngh2.NGH2Error:
            if self._transport is not None:
                self._transport.abort()
            return
        self._flush()

    def _handle(self, event: ngh2.Event) -> None:
        if isinstance(event, ngh2.RequestReceived):
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
            self._streams[event.stream_id] = _Stream(headers)
            if event.end_stream:
                self._whole(event.stream_id)
        elif isinstance(event, ngh2.DataReceived):
            self._streams[event.stream_id].body += event.data
            if event.end_stream:
                self._whole(event.stream_id)
        elif isinstance(event, ngh2.TrailersReceived):
            self._whole(event.stream_id)
        elif isinstance(event, (ngh2.StreamClosed, ngh2.StreamReset)):
            self._streams.pop(event.stream_id, None)

    def _whole(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        pseudo = {name: value for name, value in stream.headers if name.startswith(":")}
        plain = [(name, value) for name, value in stream.headers if not name.startswith(":")]
        headers = (("host", pseudo.get(":authority", "")), *plain)
        request = Request(pseudo[":method"], pseudo.get(":path", ""), headers, bytes(stream.body), "HTTP/2")
        answer = self._respond(request)
        if answer.delay_s > 0:
            timer = asyncio.get_running_loop().call_later(answer.delay_s, self._send_late, stream_id, answer)
            self._timers.add(timer)
        else:
            self._send(stream_id, answer)

    def _send_late(self, stream_id: int, answer: Answer) -> None:
        self._send(stream_id, answer)
        self._flush()

    def _send(self, stream_id: int, answer: Answer) -> None:
        if stream_id not in self._streams:
            return
        if answer.reset:
            self._session.reset_stream(stream_id)
            return
        headers = [(b":status", str(answer.status).encode())]
        headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
        self._session.send_response(stream_id, headers, end_stream=not answer.body)
        if answer.body:
            self._session.send_data(stream_id, answer.body, end_stream=True)

    def _flush(self) -> None:
        if self._transport is not None and (data := self._session.data_to_send()):
            self._transport.write(data)
