"""One HTTP/2 connection of the ngh2 engine: bytes in, calls to handlers, one write for all replies of a loop tick."""

import asyncio
import logging
import math
import random
import struct
import time
from typing import cast

import ngh2
from ngh2 import DataReceived, NGH2Error, RequestReceived, StreamClosed, StreamReset

from dragoman.grpc_worker import wire
from dragoman.grpc_worker.api import StatusCode
from dragoman.grpc_worker.ngh2_call import Ngh2Call
from dragoman.grpc_worker.ngh2_session import new_session
from dragoman.grpc_worker.ngh2_shared import Shared, peer_of

log = logging.getLogger("dragoman.grpc_worker")

FLUSH_BYTES = 256 * 1024
TURN_BYTES = 128 * 1024
STREAM_BYTES = 1200
"""What a stream that is open takes, about, beside what is sent on it."""
DRAIN_PING = b"draining"
LIVENESS_PING = b"still-up"
DRAIN_PING_S = 1.0
LAST_WORDS_S = 1.0
TOO_MANY = StatusCode.RESOURCE_EXHAUSTED, "too many incomplete requests"

_prefix = struct.Struct(">BI")
_pack_prefix = _prefix.pack
_unpack_prefix = _prefix.unpack_from


class Connection(asyncio.Protocol):
    """The server's side of one connection. All of it runs in the event loop; nothing here waits."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = shared.loop
        self._batch = shared.batch
        self._methods = shared.methods
        self._max_message_bytes = shared.limits.max_message_bytes
        self._observe = shared.observe
        self._session = new_session(shared.limits)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._calls: dict[int, Ngh2Call] = {}
        self._resets: list[int] = []
        """Streams that were answered before the client had sent everything."""
        self.buffered_bytes = 0
        """Of requests that have not come whole."""
        self.incomplete = 0
        """How many of these there were at the last sweep."""
        self.unread_bytes = 0
        """About what replies held at the last sweep that the peer does not take."""
        self._flush_is_due = False
        self._writing_paused = False
        self._closing = False
        self._draining = False
        self._heard = self._ready = False
        self._heard_at = self._busy_at = self._opened_at = self._closed_at = shared.loop.time()
        age_s = shared.limits.connection_age_s * random.uniform(0.9, 1.1)  # noqa: S311  (no secret)
        self._ends_at = self._opened_at + age_s if age_s else math.inf
        self._pinged_at: float | None = None
        self._unread_since: float | None = None
        self._last_stream = self._swept_stream = 0

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls, owner = transport.get_extra_info("ssl_object"), self._shared.owner
        if (tls is not None and not owner.admits(tls, peer_of(transport))) or not owner.opened(self):
            self.abort()
            return
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._heard = True
        self._flush_is_due = True
        self._batch.begin()
        try:
            self._session.receive_data(data)
            for event in self._session.events():
                kind = type(event)
                if kind is DataReceived:
                    self._on_data(cast("DataReceived", event))
                elif kind is RequestReceived:
                    self._on_request(cast("RequestReceived", event))
                elif kind is StreamClosed or kind is StreamReset:
                    self._on_stream_end(cast("StreamClosed", event).stream_id)
                else:
                    self._on_rare_event(event)
        except NGH2Error as error:
            self._broken(error)
            return
        finally:
            self._batch.end()
        self._flush()
        if len(data) >= TURN_BYTES:
            self._give_others_a_turn()

    def pause_writing(self) -> None:
        # A peer that does not read our replies gets no more of its requests read.
        self._writing_paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        for stream_id in list(self._calls):
            self._on_stream_end(stream_id)
        self._shared.owner.closed(self)

    def _give_others_a_turn(self) -> None:
        # The loop would go on reading for as long as there is more: of small frames that takes it a second and longer.
        if not (self._closing or self._writing_paused):
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not (self._closing or self._writing_paused):
            self._transport.resume_reading()

    # What the server asks for.

    def abort(self) -> None:
        """Cuts the connection."""
        self._leave()
        self._transport.abort()

    def drain(self) -> None:
        """Says GOAWAY, lets calls finish, then closes."""
        if self._draining or self._closing:
            return
        self._draining = True
        if not self._ready:
            self._close()
            return
        # Two steps (RFC 9113 §6.8): requests that were under way when the peer learnt of it are still served.
        self._session.send_shutdown_notice()
        self._session.ping(DRAIN_PING)
        self._flush()
        self._loop.call_later(DRAIN_PING_S, self._last_goaway)

    def sweep(self, now: float) -> None:
        """Runs every second or so: everything that is about time but not about deadlines."""
        limits = self._shared.limits
        if self._closing:
            if now - self._closed_at > LAST_WORDS_S:
                self._transport.abort()
            return
        if not self._ready:
            if now - self._opened_at > limits.handshake_s:
                self.abort()
            return
        if self._heard:
            self._heard, self._heard_at, self._pinged_at = False, now, None
        self._sweep_incomplete(now, limits.request_s)
        if self._calls or self._last_stream != self._swept_stream:
            self._busy_at, self._swept_stream = now, self._last_stream
        self._flush()  # What was answered in this very tick, as all is when a store is given up, is not left unread.
        queued = self._session.queued_body_size()
        self.unread_bytes = queued + limits.max_concurrent_streams * STREAM_BYTES if queued else 0
        self._unread_since = (self._unread_since or now) if queued else None
        unread = self._unread_since is not None and now - self._unread_since > limits.unread_s
        if unread or now > self._ends_at + limits.connection_age_grace_s:
            self.abort()
        elif now - self._busy_at > limits.connection_idle_s or (now > self._ends_at and not self._draining):
            self.drain()
        elif self._pinged_at is not None:
            if now - self._pinged_at > limits.keepalive_timeout_s:
                self.abort()
        elif now - self._heard_at > limits.keepalive_time_s:
            self._pinged_at = now
            self._session.ping(LIVENESS_PING)
            self._flush()

    @property
    def has_called(self) -> bool:
        """Whether there ever was a request."""
        return self._last_stream > 0

    @property
    def idle_since(self) -> float | None:
        """Since when (to about a second) nothing is under way; None while something is."""
        if self._closing or self._calls or self._session.queued_body_size():
            return None
        return self._busy_at if self._last_stream == self._swept_stream else self._loop.time()

    def give_way(self) -> None:
        """Says GOAWAY and closes at once, for nothing is under way."""
        if self._writing_paused:
            self.abort()
            return
        self._session.send_goaway()
        self._flush()
        if not self._closing:
            self._close()

    def shed(self) -> None:
        """Refuses what has not come whole."""
        for call in [each for each in self._calls.values() if not each.complete]:
            self._refuse_message(call, TOO_MANY, at_end=False)

    # What a call asks for.

    def reply(self, call: Ngh2Call, body: bytes) -> None:
        session, stream_id = self._session, call.stream_id
        self._forget(call, StatusCode.OK)
        try:
            session.send_response(stream_id, wire.RESPONSE_HEADERS)
            session.send_data(stream_id, _pack_prefix(0, len(body)) + body)
            session.send_trailers(stream_id, wire.OK_TRAILERS)
        except NGH2Error:
            call.cancelled = True  # The stream went away in this very tick.
        if not self._flush_is_due:
            self._flush_is_due = True
            self._batch.soon(self._flush)

    def refuse(self, call: Ngh2Call, code: StatusCode, message: str) -> None:
        self._forget(call, code)
        self._send_only_headers(call.stream_id, wire.error_trailers(code, message), call.complete)

    # Events.

    def _on_request(self, event: RequestReceived) -> None:
        headers = dict(event.headers)
        stream_id = self._last_stream = event.stream_id
        content_type = headers.get(b"content-type", b"")
        if content_type != b"application/grpc" and not wire.is_grpc_content_type(content_type):
            self._send_only_headers(stream_id, wire.NOT_GRPC, event.end_stream)
            return
        method = self._methods.get(headers.get(b":path", b""))  # CONNECT has none.
        if method is None or headers[b":method"] != b"POST":
            refusal = wire.UNKNOWN_METHOD if method is None else wire.NOT_POST
            self._send_only_headers(stream_id, refusal, event.end_stream)
            return
        timeout = headers.get(b"grpc-timeout")
        timeout_s = wire.parse_timeout(timeout) if timeout is not None else None
        deadline = self._loop.time() + timeout_s if timeout_s is not None else None
        started = time.perf_counter() if self._observe is not None else 0.0
        call = self._calls[stream_id] = Ngh2Call(self, stream_id, method, deadline, started)
        if event.end_stream:
            call.complete = True
            call.fail(StatusCode.INTERNAL, "the request has no message")

    def _on_data(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None or call.complete:
            return
        data = event.data
        if event.end_stream and call.buffer is None and len(data) >= wire.PREFIX_BYTES:
            flags, length = _unpack_prefix(data)
            if flags == 0 and length == len(data) - wire.PREFIX_BYTES and length <= self._max_message_bytes:
                self._dispatch(call, data[wire.PREFIX_BYTES :])
                return
        self._accumulate(call, data, event.end_stream)

    def _accumulate(self, call: Ngh2Call, data: bytes, at_end: bool) -> None:
        if call.buffer is None:
            call.buffer = bytearray()
        call.buffer += data
        call.complete = at_end
        self.buffered_bytes += len(data)
        self._shared.owner.buffered(len(data))
        if call.ended:
            return  # It has just been refused, for all together hold too much.
        fault = TOO_MANY if self.buffered_bytes > self._shared.limits.max_buffered_bytes else None
        fault = fault or wire.fault_of_message(call.buffer, at_end, self._max_message_bytes)
        if fault is not None:
            self._refuse_message(call, fault, at_end)
        elif at_end:
            self._dispatch(call, bytes(memoryview(call.buffer)[wire.PREFIX_BYTES :]))

    def _refuse_message(self, call: Ngh2Call, fault: tuple[StatusCode, str], at_end: bool) -> None:
        too_large = self._shared.limits.too_large
        if too_large is None or fault[0] is not StatusCode.RESOURCE_EXHAUSTED:
            call.fail(*fault)
            return
        call.done(too_large())
        if not at_end:
            self._resets.append(call.stream_id)

    def _dispatch(self, call: Ngh2Call, body: bytes) -> None:
        call.complete = True
        if call.buffer is not None:
            self._release(call)
        try:
            call.method.handler(body, call)
        except Exception:
            log.exception("the handler of %s failed", call.method.name)
            call.fail(StatusCode.INTERNAL, "internal error")
        if not call.ended and call.deadline is not None:
            self._shared.deadlines.watch(call, call.deadline)

    def _on_stream_end(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        if call is not None:
            call.cancelled = call.ended = True
            self._forget(call, StatusCode.CANCELLED)

    def _on_rare_event(self, event: ngh2.Event) -> None:
        if isinstance(event, ngh2.SettingsReceived):
            self._ready = True
        elif isinstance(event, ngh2.PingAcknowledged) and event.opaque_data == DRAIN_PING:
            self._last_goaway()
        elif isinstance(event, ngh2.TrailersReceived):
            call = self._calls.get(event.stream_id)
            if call is not None and not call.complete:
                self._accumulate(call, b"", at_end=True)

    # Helpers.

    def _forget(self, call: Ngh2Call, code: StatusCode) -> None:
        self._calls.pop(call.stream_id, None)
        if call.slot is not None:
            call.slot.discard(call)
        if call.buffer is not None:
            self._release(call)
        if self._observe is not None:
            self._observe(call.method.name, code, time.perf_counter() - call.started)

    def _release(self, call: Ngh2Call) -> None:
        length = len(call.buffer or b"")
        self.buffered_bytes -= length
        self._shared.owner.buffered(-length)
        call.buffer = None

    def _send_only_headers(self, stream_id: int, headers: wire.Headers, request_ended: bool) -> None:
        try:
            self._session.send_response(stream_id, headers, end_stream=True)
        except NGH2Error:
            return
        if not request_ended:
            self._resets.append(stream_id)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._batch.soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._closing:
            return
        session = self._session
        try:
            while not self._writing_paused:
                out = session.data_to_send(FLUSH_BYTES)
                if self._resets:
                    # Queued before its headers have left, a reset would replace them.
                    for stream_id in self._resets:
                        session.reset_stream(stream_id, ngh2.ErrorCode.NO_ERROR)
                    self._resets.clear()
                    out += session.data_to_send(FLUSH_BYTES)
                if not out:
                    break
                self._transport.write(out)
                if len(out) < FLUSH_BYTES:
                    break
            if not session.want_read and not session.want_write:
                self._close()
        except NGH2Error as error:
            self._broken(error)

    def _last_goaway(self) -> None:
        if not self._closing:
            self._session.send_goaway()
            self._flush()

    def _sweep_incomplete(self, now: float, request_s: float) -> None:
        incomplete = [call for call in self._calls.values() if not call.complete]
        self.incomplete = len(incomplete)
        for call in incomplete:
            if call.swept_at is None:
                call.swept_at = now
            elif now - call.swept_at > request_s:
                call.fail(StatusCode.DEADLINE_EXCEEDED, "the request did not arrive in time")

    def _broken(self, error: Exception) -> None:
        self._shared.owner.misbehaved(peer_of(self._transport), error)
        self._close()

    def _close(self) -> None:
        self._leave()
        self._transport.close()

    def _leave(self) -> None:
        self._closing, self._closed_at = True, self._loop.time()
        self._shared.owner.leaving(self)
