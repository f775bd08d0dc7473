"""One connection to Redis: all that is asked within a turn of the event loop goes out in one write."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_commands import expire

Question = tuple[Flight, int, Check]
"""A flight, which of its replies, and the check that it is about."""
OnError = Callable[[Question, str], None]

_WRITE_HIGH_BYTES = 1024 * 1024


class RedisConnection(asyncio.Protocol):
    """Sends commands and matches replies to flights. Flights that wait longer than `timeout_s` are given up.

    `stalled` is set when that happens: the owner finds out whether the server lives, and clears it.
    """

    def __init__(self, *, generation: int, timeout_s: float, max_pending: int, on_error: OnError) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._max_pending = max_pending
        self._on_error = on_error
        self._reader = hiredis.Reader()
        # For each reply that is to come: a question, someone waiting for it whatever it is, or nobody.
        self._pending: deque[Question | asyncio.Future[Any] | None] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked_late = False
        self._paused = False
        self.generation = generation
        self.given_up = 0
        """How many questions got no reply in time."""
        self.stalled = asyncio.Event()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.observe: Callable[[float], None] = lambda seconds: None
        """Told how long replies took, once for each batch of them."""

    @property
    def usable(self) -> bool:
        """Whether a question would be answered, as far as one knows."""
        return not (
            self._transport is None or self._paused or len(self._pending) >= self._max_pending or self.stalled.is_set()
        )

    def ask(self, data: bytes, question: Question) -> None:
        """Sends a command whose reply is an integer."""
        self._send(data)
        self._pending.append(question)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)

    def tell(self, data: bytes) -> None:
        """Sends a command whose reply matters to nobody."""
        self._send(data)
        self._pending.append(None)

    def command(self, data: bytes) -> asyncio.Future[Any]:
        """Sends a command; the future gets its reply, which may be a ReplyError, or None if none can come."""
        self._send(data)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(future)
        return future

    def abort(self, reason: str) -> None:
        """Gives the connection up."""
        if not self.closed.done():
            self.closed.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._give_up()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(str(exc) if exc is not None else "closed by the server")
        self._give_up()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        reader, pending = self._reader, self._pending
        last: Flight | None = None
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                entry = pending.popleft()
                if entry is None:
                    continue
                if not isinstance(entry, tuple):
                    if not entry.done():
                        entry.set_result(reply)
                    continue
                last = entry[0]
                if last.left > 0:
                    self._replied(entry, reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(f"not Redis's protocol: {error}")
        if last is not None:
            self.observe(time.monotonic() - last.sent_at)

    def _replied(self, question: Question, reply: Any) -> None:
        flight, index, check = question
        if reply.__class__ is not int:
            self._on_error(question, str(reply))
            return
        if reply == check.hits and check.limit.script is None and reply:
            self._ensure_expiry(check)
        flight.replies[index] = reply
        flight.left -= 1
        if not flight.left:
            flight.settle()

    def _ensure_expiry(self, check: Check) -> None:
        # A counter that begins although its expiry was sent: the server has lost it since, so it needs another.
        if not (self._pending and self._pending[0] is None):
            self.tell(expire(check.counter))

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self) -> None:
        self._timer = None
        oldest = next((entry[0] for entry in self._pending if isinstance(entry, tuple) and entry[0].left > 0), None)
        if oldest is None:
            return
        wait_s = oldest.sent_at + self._timeout_s - time.monotonic()
        if wait_s > 0:
            self._looked_late = False
            self._timer = self._loop.call_later(wait_s, self._look)
        elif not self._looked_late:
            # If it was this process that stood still, the replies are there: let them be read first.
            self._looked_late = True
            self._timer = self._loop.call_later(0.001, self._look)
        else:
            self._looked_late = False
            self.stalled.set()
            self._give_up(older_than=time.monotonic() - self._timeout_s)
            self._timer = self._loop.call_later(0.001, self._look)

    def _give_up(self, older_than: float = float("inf")) -> None:
        for entry in tuple(self._pending):
            if isinstance(entry, asyncio.Future):
                if older_than == float("inf") and not entry.done():
                    entry.set_result(None)
            elif entry is not None and entry[0].left > 0 and entry[0].sent_at <= older_than:
                self.given_up += entry[0].left
                entry[0].left = -1
                entry[0].settle()
        if older_than == float("inf"):
            self._pending.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
