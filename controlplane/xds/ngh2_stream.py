"""One call of the ngh2 engine: messages are cut out of what comes, and are sent in pieces as there is room."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from typing import Final, Protocol

from controlplane.xds.authentication import Metadata
from controlplane.xds.identity import Principal
from controlplane.xds.streams import MALFORMED, STALLED, Context, End, Message, Method, Visit
from dragoman.grpc_worker.api import StatusCode

_log = logging.getLogger(__name__)

_PREFIX: Final = struct.Struct(">BI")
PREFIX_BYTES: Final = _PREFIX.size
_MAX_WAITING_BYTES: Final = 1 << 20
"""Of messages that came before anybody was there to take them; then the connection is read no further."""


class Sink(Protocol):
    """Who takes the messages of a stream, and has some for it."""

    def take(self, raw: bytes) -> End | None: ...
    def next_message(self) -> Message | None: ...
    def close(self) -> None: ...


class Wire(Protocol):
    """What a stream asks of its connection."""

    def wake(self, stream: Stream) -> None: ...
    def read_on(self) -> None: ...
    def ended(self, stream: Stream, why: End) -> None: ...


class Stream:
    """Its state; plain slots, because there is one for every client."""

    __slots__ = (
        "_buffer",
        "_limit",
        "_wire",
        "ending",
        "half_closed",
        "heard",
        "id",
        "metadata",
        "moved_at",
        "parts",
        "said_headers",
        "sink",
        "timer",
        "visit",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, wire: Wire, stream_id: int, metadata: Metadata, limit: int, now: float) -> None:
        self._wire = wire
        self._limit = limit
        self._buffer = bytearray()
        self.id = stream_id
        self.metadata = metadata
        self.sink: Sink | None = None
        self.visit: Visit | None = None
        self.waiting: list[bytes] = []
        self.waiting_bytes = 0
        self.parts: deque[memoryview] = deque()
        self.ending: End | None = None
        self.half_closed = False
        self.said_headers = False
        self.moved_at = now
        self.heard = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_behind(self) -> bool:
        """Whether so much has come that nobody takes that no more should be read."""
        return self.waiting_bytes > _MAX_WAITING_BYTES

    def wake(self) -> None:
        """Has the connection ask for the next message."""
        self._wire.wake(self)

    def end(self, why: End) -> None:
        """Ends the stream, unless it is being ended."""
        if self.ending is None:
            self.ending = why
            if why.code != StatusCode.OK:
                self.parts.clear()
            self._wire.ended(self, why)
        elif why is STALLED:
            # What it was still to be sent before it is told, it does not take.
            self.ending = why
            self.parts.clear()
            self._wire.wake(self)

    def receive(self, data: bytes) -> None:
        """Takes what has come, of any length."""
        if self.ending is not None:
            self.heard = True
            self._wire.wake(self)
            return
        buffer = self._buffer
        if not buffer and len(data) >= PREFIX_BYTES:
            flags, length = _PREFIX.unpack_from(data)
            if not flags and length == len(data) - PREFIX_BYTES:
                self._take(data[PREFIX_BYTES:])
                return
        buffer += data
        while self.ending is None and len(buffer) >= PREFIX_BYTES:
            flags, length = _PREFIX.unpack_from(buffer)
            if flags or length > self._limit:
                self.end(_TOO_LONG if not flags else _FLAGS if flags == 1 else MALFORMED)
                return
            if len(buffer) < PREFIX_BYTES + length:
                return
            message = bytes(memoryview(buffer)[PREFIX_BYTES : PREFIX_BYTES + length])
            del buffer[: PREFIX_BYTES + length]
            self._take(message)

    def serve(self, sink: Sink) -> None:
        """Has somebody take what comes, and what has come before."""
        self.sink = sink
        waiting, self.waiting, self.waiting_bytes = self.waiting, [], 0
        for raw in waiting:
            self._take(raw)
        if self.half_closed:
            self.half_close()

    def half_close(self) -> None:
        """Takes in that nothing more will come."""
        self.half_closed = self.heard = True
        if self.ending is not None:
            self._wire.wake(self)
        elif isinstance(self.sink, Conversation):
            self.sink.half_close()
        elif self.sink is not None:
            self.end(_OVER)

    def taken(self, length: int) -> None:
        """Takes in that so many of the bytes that were waiting have been taken."""
        self.waiting_bytes -= length
        self._wire.read_on()

    def put(self, message: Message) -> None:
        """Queues a message; only one at a time."""
        length = sum(map(len, message))
        parts = self.parts
        if length < _WHOLE_BYTES:
            parts.append(memoryview(b"".join((_PREFIX.pack(0, length), *message))))
            return
        parts.append(memoryview(_PREFIX.pack(0, length)))
        parts.extend(map(memoryview, message))

    def cut(self, room: int) -> bytes:
        """Takes up to so many bytes of what is queued."""
        parts = self.parts
        taken: list[memoryview] = []
        while parts and room > 0:
            part = parts[0]
            if len(part) <= room:
                taken.append(parts.popleft())
            else:
                taken.append(part[:room])
                parts[0] = part[room:]
            room -= len(taken[-1])
        return taken[0].tobytes() if len(taken) == 1 else b"".join(taken)

    def hush(self) -> None:
        """Stops the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close(self) -> None:
        """Drops everything."""
        self.parts.clear()
        self.waiting.clear()
        self._buffer = bytearray()
        self.hush()
        if self.sink is not None:
            self.sink.close()
            self.sink = None

    def _take(self, raw: bytes) -> None:
        self.hush()
        self.heard = True
        if self.ending is not None:
            return
        if self.sink is None:
            self.waiting.append(raw)
            self.waiting_bytes += len(raw)
        elif (end := self.sink.take(raw)) is not None:
            self.end(end)


_WHOLE_BYTES: Final = 16_384
"""A shorter message is one piece: copying it costs less than handling several."""


class Conversation(Context):
    """A call of a method beside discovery: a task that reads and writes."""

    def __init__(self, stream: Stream, peer: str, method: Method, principal: Principal) -> None:
        self._stream = stream
        self._peer = peer
        self._inbox: deque[bytes] = deque()
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._outgoing: Message | None = None
        self._writer: asyncio.Future[None] | None = None
        self._task = asyncio.ensure_future(method(self, principal))
        self._task.add_done_callback(self._over)

    def peer(self) -> str:
        return self._peer

    async def read(self) -> bytes | None:
        while not self._inbox:
            if self._closed:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        raw = self._inbox.popleft()
        self._stream.taken(len(raw))
        return raw

    async def write(self, message: bytes) -> None:
        while self._writer is not None:
            await asyncio.shield(self._writer)
        self._outgoing = [message]
        self._writer = asyncio.get_running_loop().create_future()
        self._stream.wake()
        await asyncio.shield(self._writer)

    # As a sink

    def take(self, raw: bytes) -> End | None:
        self._inbox.append(raw)
        self._stream.waiting_bytes += len(raw)
        self._rouse()
        return None

    def next_message(self) -> Message | None:
        message, self._outgoing = self._outgoing, None
        if message is not None and self._writer is not None:
            writer, self._writer = self._writer, None
            writer.set_result(None)
        return message

    def half_close(self) -> None:
        self._closed = True
        self._rouse()

    def close(self) -> None:
        self.half_close()
        self._task.cancel()

    def _rouse(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _over(self, task: asyncio.Task[End | None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("a call of %s failed", self._peer, exc_info=error)
            self._stream.end(End(StatusCode.INTERNAL, "internal error", "failed"))
            return
        self._stream.end(task.result() or _OVER)


_OVER: Final = End(StatusCode.OK, "", "over")
_TOO_LONG: Final = End(StatusCode.RESOURCE_EXHAUSTED, "the message is too long", "malformed")
_FLAGS: Final = End(StatusCode.UNIMPLEMENTED, "compressed messages are not supported", "malformed")
