"""A gRPC client for tests that is as rude as it is told to be: raw bytes, odd frames, no reading."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import ngh2

from dragoman.grpc_worker import Address, Call, GrpcServer

PATIENCE_S = 30.0
METHOD = "/test.Service/Method"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def message(body: bytes, *, flags: int = 0, length: int | None = None) -> bytes:
    """A length-prefixed gRPC message, true or not."""
    return struct.pack(">BI", flags, len(body) if length is None else length) + body


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def echo(body: bytes, call: Call) -> None:
    """A handler."""
    call.done(body)


async def assert_serves(server: GrpcServer) -> None:
    """Raises AssertionError unless a new client of a server with that handler is served."""
    client = await RawClient.to(server.address)
    answer = await client.answer(client.ask(message(b"still there?")))
    assert (answer.status, answer.body) == (0, message(b"still there?"))
    client.close()


@dataclass(slots=True)
class Answer:
    """What came back on a stream."""

    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The grpc-status; -1 where there is none."""
        return int(self.headers.get("grpc-status", -1))


class RawClient:
    """One connection; `answers` fills as bytes are read by `until` and `ended`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.session = ngh2.Connection(
            ngh2.Role.CLIENT,
            ngh2.Configuration(max_send_header_block_length=1 << 24, peer_max_concurrent_streams=1 << 20),
        )
        self.answers: dict[int, Answer] = {}
        self.events: list[ngh2.Event] = []

    @classmethod
    async def to(cls, address: Address, *, start: bool = True, window_bytes: int = 65_535) -> RawClient:
        if address.is_unix:
            client = cls(*await asyncio.open_unix_connection(address.path))
        else:
            client = cls(*await asyncio.open_connection(address.host, address.port))
        if start:
            client.session.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: window_bytes})
            await client.flush()
            await client.until(lambda: client.saw(ngh2.SettingsReceived))
        return client

    def saw(self, kind: type[ngh2.Event]) -> bool:
        return any(isinstance(event, kind) for event in self.events)

    def ask(
        self,
        data: bytes | None = None,
        *,
        end: bool = True,
        path: str = METHOD,
        method: str = "POST",
        content_type: str = "application/grpc",
        more: Sequence[tuple[bytes, bytes]] = (),
    ) -> int:
        """Queues a request, returns its stream; `data` None is a request without a body."""
        stream = self.session.send_request(
            [
                (b":method", method.encode()),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", b"worker"),
                (b"content-type", content_type.encode()),
                (b"te", b"trailers"),
                *more,
            ],
            end_stream=data is None and end,
        )
        self.answers[stream] = Answer()
        if data is not None:
            self.session.send_data(stream, data, end_stream=end)
        return stream

    async def answer(self, stream: int) -> Answer:
        await self.flush()
        await self.until(lambda: self.answers[stream].ended)
        return self.answers[stream]

    async def flush(self) -> None:
        await self.send(self.session.data_to_send())

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self._writer.drain()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Reads until it is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                data = await self._reader.read(1 << 16)
                if not data:
                    raise ConnectionResetError("the worker closed the connection")
                try:
                    self.session.receive_data(data)
                except ngh2.ConnectionStateError as fault:
                    raise ConnectionResetError("the worker said GOAWAY and nothing is in flight") from fault
                self._note(self.session.events())
                await self.flush()

    async def ended(self) -> bytes:
        """Waits for the worker to close the connection; returns what it still said."""
        said = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while data := await self._reader.read(1 << 16):
                    said += data
            except ConnectionError:
                pass
        return said

    def close(self) -> None:
        self._writer.close()

    def _note(self, events: Sequence[ngh2.Event]) -> None:
        self.events += events
        for event in events:
            answer = self.answers.get(getattr(event, "stream_id", 0)) or Answer()
            match event:
                case ngh2.ResponseReceived() | ngh2.TrailersReceived():
                    answer.headers |= {name.decode(): value.decode() for name, value in event.headers}
                    answer.ended |= isinstance(event, ngh2.TrailersReceived) or event.end_stream
                case ngh2.DataReceived():
                    answer.body += event.data
                    answer.ended |= event.end_stream
                case ngh2.StreamReset():
                    answer.reset = event.error_code
                    answer.ended = True
                case _:
                    pass
