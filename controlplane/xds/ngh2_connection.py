"""One HTTP/2 connection of the ngh2 engine: without a task or a queue, for there are as many as there are Envoys."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

import ngh2
from ngh2 import DataReceived, NGH2Error, RequestReceived, StreamClosed, StreamReset, WindowUpdated

from controlplane.xds.authentication import Authenticated
from controlplane.xds.identity import Principal
from controlplane.xds.listening import Limits
from controlplane.xds.ngh2_session import new_session
from controlplane.xds.ngh2_stream import Sink, Stream
from controlplane.xds.ngh2_tls import Tls
from controlplane.xds.streams import HEAR_OUT_S, SILENT, STALLED, STOPPING, Admission, End, Gate, Visit
from dragoman.grpc_worker import wire
from dragoman.grpc_worker.api import StatusCode

PIECE_BYTES: Final = 131_072
"""As much is handed to a connection at a time, so that a thousand that are sent a megabyte each take turns."""
_END_WITHIN_S: Final = 2.0
"""A client that is told that its stream is over ends its side in this time; a reset could overtake what it is told."""
_PING: Final = b"still-up"

Serve = Callable[[Stream, Principal, str], Sink]
"""Makes who takes a stream's messages; given whose stream it is, and where they are."""


class Owner(Protocol):
    """What a connection asks of its server."""

    def opened(self, connection: Connection) -> bool: ...
    def closed(self, connection: Connection) -> None: ...
    def due(self, connection: Connection, *, first: bool = False) -> None: ...
    def refused(self, end: End) -> None: ...
    def misbehaved(self, peer: str, error: Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections at one address have in common."""

    owner: Owner
    gate: Gate
    admission: Admission
    methods: Mapping[bytes, Serve]
    limits: Limits


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    __slots__ = (
        "_busy_at",
        "_closing",
        "_heard",
        "_heard_at",
        "_over",
        "_paused",
        "_pinged_at",
        "_ready",
        "_session",
        "_shared",
        "_streams",
        "_tasks",
        "_tls",
        "_transport",
        "_writable",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._session = new_session()
        admission = shared.admission
        tls = admission.tls if isinstance(admission, Authenticated) else None
        self._tls = Tls(tls.context) if tls is not None else None
        self._transport = cast("asyncio.Transport", None)
        self._streams: dict[int, Stream] = {}
        # Those that have something to send, or may have: the one whose turn it is comes first.
        self._writable: dict[Stream, None] = {}
        # Streams whose client has been told that they are over, and has yet to end its side → when that was.
        self._over: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = self._closing = self._ready = False
        self._heard = False
        self._heard_at = self._busy_at = asyncio.get_running_loop().time()
        self._pinged_at: float | None = None

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._shared.owner.opened(self):
            self.abort()
            return
        self._transport.set_write_buffer_limits(high=PIECE_BYTES)
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._heard = True
        try:
            self._session.receive_data(data if self._tls is None else self._tls.receive(data))
            for event in self._session.events():
                self._take(event)
        except (NGH2Error, ssl.SSLError) as error:
            self._broken(error)
            return
        self.read_on()
        self._shared.owner.due(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._heard = True  # Slow, but alive.
        self._shared.owner.due(self, first=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        for stream in list(self._streams.values()):
            self._forget(stream)
        for task in self._tasks:
            task.cancel()
        self._shared.owner.closed(self)

    # What the server asks for

    def flush(self) -> bool:
        """Sends what there is to send, but no more than a piece; returns whether there is more."""
        if self._closing or self._paused:
            return False
        try:
            return self._flush()
        except (NGH2Error, ssl.SSLError) as error:
            self._broken(error)
            return False

    def abort(self) -> None:
        """Cuts the connection."""
        self._closing = True
        self._transport.abort()

    def shut(self) -> None:
        """Says what is left to say, and closes."""
        if self._closing:
            return
        while self.flush():
            pass
        self._session.send_goaway()
        self.flush()
        self._closing = True
        self._transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether it is of no use to anybody: who follows has a stream."""
        return not self._closing and not self._streams

    def sweep(self, now: float) -> None:
        """Runs every second or so: everything that is about time."""
        limits = self._shared.limits
        if self._closing:
            # Who does not take the last words would keep it open for ever.
            if now - self._busy_at > _END_WITHIN_S:
                self._transport.abort()
            return
        if self._heard:
            self._heard, self._heard_at, self._pinged_at = False, now, None
        if self._streams:
            self._busy_at = now
        for stream_id in [each for each, since in self._over.items() if now - since > _END_WITHIN_S]:
            del self._over[stream_id]
            with contextlib.suppress(NGH2Error):  # It is over by now.
                self._session.reset_stream(stream_id, ngh2.ErrorCode.NO_ERROR)
            self._shared.owner.due(self)
        for stream in list(self._streams.values()):
            if stream.parts and now - stream.moved_at > limits.stall_s:
                stream.end(STALLED)
        idle_s = limits.connection_idle_s if self._ready else limits.first_request_timeout_s
        if now - self._busy_at > idle_s:
            self.shut()
        elif self._pinged_at is not None:
            if now - self._pinged_at > limits.keepalive_s / 3:
                self.abort()
        elif now - self._heard_at > limits.keepalive_s:
            self._pinged_at = now
            self._session.ping(_PING)
            self._shared.owner.due(self)

    # What a stream asks for

    def wake(self, stream: Stream) -> None:
        if stream.id in self._streams:
            self._writable[stream] = None
            self._shared.owner.due(self)

    def ended(self, stream: Stream, why: End) -> None:
        self._release(stream)
        stream.hush()
        if stream.heard or why in (SILENT, STOPPING):
            self.wake(stream)
        else:
            # Told so before it has asked, a client of grpcio's takes its own failing write for the reason.
            stream.timer = asyncio.get_running_loop().call_later(HEAR_OUT_S, self.wake, stream)
        if why.code != StatusCode.OK:
            self._shared.owner.refused(why)

    @property
    def peer(self) -> str:
        """Where the client is."""
        found = self._transport.get_extra_info("peername")
        return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else "unix"

    # Within

    def _take(self, event: ngh2.Event) -> None:
        kind = type(event)
        if kind is DataReceived:
            data = cast("DataReceived", event)
            stream = self._streams.get(data.stream_id)
            if stream is not None:
                stream.receive(data.data)
                if data.end_stream:
                    stream.half_close()
        elif kind is WindowUpdated:
            stream_id = cast("WindowUpdated", event).stream_id
            for stream in self._streams.values() if stream_id == 0 else filter(None, (self._streams.get(stream_id),)):
                if stream.parts:
                    self._writable[stream] = None
        elif kind is RequestReceived:
            self._open(cast("RequestReceived", event))
        elif kind is StreamClosed or kind is StreamReset:
            stream_id = cast("StreamClosed", event).stream_id
            self._over.pop(stream_id, None)
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._forget(stream)
        elif kind is ngh2.SettingsReceived:
            self._ready = True
        elif isinstance(event, ngh2.TrailersReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.half_close()

    def _open(self, event: RequestReceived) -> None:
        headers = dict(event.headers)
        content_type = headers.get(b"content-type", b"")
        if not wire.is_grpc_content_type(content_type):
            self._refuse(event, wire.NOT_GRPC)
            return
        serve = self._shared.methods.get(headers.get(b":path", b""))
        if serve is None or headers.get(b":method") != b"POST":
            self._refuse(event, wire.UNKNOWN_METHOD if serve is None else wire.NOT_POST)
            return
        loop, limits = asyncio.get_running_loop(), self._shared.limits
        admission = self._shared.admission
        free = isinstance(admission, Principal)
        metadata = () if free else tuple((name.decode("latin-1"), value) for name, value in event.headers)
        stream = Stream(self, event.stream_id, metadata, limits.max_request_bytes, loop.time())
        self._streams[stream.id] = stream
        stream.timer = loop.call_later(limits.first_request_timeout_s, stream.end, SILENT)
        if isinstance(admission, Principal):
            self._admit(stream, serve, admission)
        else:
            task = loop.create_task(self._authenticate(stream, serve))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if event.end_stream:
            stream.half_close()

    async def _authenticate(self, stream: Stream, serve: Serve) -> None:
        admission = self._shared.admission
        assert not isinstance(admission, Principal)
        metadata, stream.metadata = stream.metadata, ()
        found = await self._shared.gate.authenticate(admission, metadata, self.peer)
        if stream.ending is not None or stream.id not in self._streams:
            return
        if isinstance(found, End):
            stream.end(found)
        else:
            self._admit(stream, serve, found)
            self.read_on()

    def _admit(self, stream: Stream, serve: Serve, principal: Principal) -> None:
        ages = not isinstance(self._shared.admission, Principal)
        visit = self._shared.gate.enter(principal, stream.end, ages=ages)
        if isinstance(visit, Visit):
            stream.visit = visit
            stream.serve(serve(stream, principal, self.peer))
            self.wake(stream)
        else:
            stream.end(visit)

    def _refuse(self, event: RequestReceived, headers: wire.Headers) -> None:
        self._session.send_response(event.stream_id, headers, end_stream=True)
        if not event.end_stream:
            self._over[event.stream_id] = asyncio.get_running_loop().time()

    def _flush(self) -> bool:
        session, left = self._session, PIECE_BYTES
        while self._writable and left > 0:
            stream = next(iter(self._writable))
            fed = self._feed(stream, left)
            if fed is None:
                self._writable.pop(stream, None)
            else:
                left -= fed
        out = session.data_to_send() if self._tls is None or self._tls.ready else b""
        if self._tls is not None:
            out = self._tls.send(out)
        if out:
            self._transport.write(out)
        if not session.want_read and not session.want_write:
            self._closing = True
            self._transport.close()
        return bool(self._writable) and not self._paused

    def _feed(self, stream: Stream, left: int) -> int | None:
        """Hands over as much of a stream as there is room for; None where it has nothing more, or no room."""
        if not stream.parts:
            message = stream.sink.next_message() if stream.sink is not None and stream.ending is None else None
            if message is None:
                if stream.ending is not None:
                    self._finish(stream)
                return None
            stream.put(message)
        session, stream_id = self._session, stream.id
        if not stream.said_headers:
            stream.said_headers = True
            session.send_response(stream_id, wire.RESPONSE_HEADERS)
        window = min(session.remote_window_size, session.stream_remote_window_size(stream_id))
        room = min(left, window - session.queued_body_size(stream_id))
        if room <= 0:
            return None
        piece = stream.cut(room)
        session.send_data(stream_id, piece)
        stream.moved_at = asyncio.get_running_loop().time()
        return len(piece)

    def _finish(self, stream: Stream) -> None:
        """Says why a stream is over, once what was under way has left."""
        end = stream.ending
        assert end is not None
        self._forget(stream)
        trailers = wire.error_trailers(end.code, end.message)
        if stream.said_headers:
            self._session.send_trailers(stream.id, trailers[len(wire.RESPONSE_HEADERS) :])
        else:
            self._session.send_response(stream.id, trailers, end_stream=True)
        # Also where the client's side is ended: of who takes no data, the library would wait to say this much.
        self._over[stream.id] = asyncio.get_running_loop().time()

    def _release(self, stream: Stream) -> None:
        if stream.visit is not None:
            self._shared.gate.leave(stream.visit)
            stream.visit = None
        if stream.sink is not None:
            sink, stream.sink = stream.sink, None
            sink.close()

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._writable.pop(stream, None)
        self._release(stream)
        stream.close()

    def read_on(self) -> None:
        """Reads no further while more has come than is taken."""
        if self._transport.is_closing():
            return
        if any(stream.is_behind for stream in self._streams.values()):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _broken(self, error: Exception) -> None:
        self._shared.owner.misbehaved(self.peer, error)
        self._closing = True
        self._transport.close()
