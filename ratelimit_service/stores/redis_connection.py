"""One connection to Redis: all that is asked in a batch, or a turn of the event loop, goes out in one write."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import hiredis

from dragoman.batch import Batch
from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_commands import expire, key_at

Question = tuple[Flight, int, Check]
"""A flight, which of its replies, and the check that it is about."""

_WRITE_HIGH_BYTES = 1024 * 1024
_MAX_REPLY_BYTES = 16 * 1024 * 1024


class Resent:
    """A question that is asked once more, elsewhere or otherwise. It keeps the time-out that it had."""

    __slots__ = ("_on_lost", "_timer", "asking", "open", "question", "tries", "whole")

    def __init__(self, question: Question, *, timeout_s: float, on_lost: Callable[[], None]) -> None:
        self.question = question
        self.tries = 0
        self.asking = False
        """Whether to say ASKING first, as a cluster demands for a slot that is on its way to the node."""
        self.whole = False
        """Whether to send the script itself, not its digest."""
        self.open = True
        """Whether an answer is still of use."""
        self._on_lost = on_lost
        wait_s = question[0].sent_at + timeout_s - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self.lose)

    def close(self) -> None:
        """Says that it was answered."""
        self.open = False
        self._timer.cancel()

    def lose(self) -> None:
        """Gives it up."""
        if self.open:
            self.close()
            self._on_lost()
            lose(self.question[0])


class _Late(NamedTuple):
    """A question that was given up; its reply may still come, and tell that a counter has begun."""

    check: Check
    asked_at: float


class _Expiry:
    """Stands for the reply to the EXPIRE of the question before it."""

    __slots__ = ()


_EXPIRY = _Expiry()

OnError = Callable[["Question | Resent", str], None]


def lose(flight: Flight) -> None:
    """Counts one reply of the flight as never to come."""
    flight.left -= 1
    if not flight.left:
        flight.settle_or_fail()


class RedisConnection(asyncio.Protocol):
    """Sends commands and matches replies to flights. Questions that wait longer than `timeout_s` are given up.

    `stalled` is set when that happens: the owner finds out whether the server lives, and calls `recovered`.
    """

    def __init__(
        self,
        *,
        generation: int = 0,
        timeout_s: float = 1.0,
        max_pending: int = 1024,
        on_error: OnError = lambda question, message: None,
        expiring: bool = True,
        batch: Batch | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._batch = batch or Batch(self._loop)
        self._timeout_s = timeout_s
        self._max_pending = max_pending
        self._on_error = on_error
        self._expiring = expiring
        """Whether counters of windows have to be told when to go."""
        self._reader = hiredis.Reader()
        # For each reply that is to come: a question, someone waiting for it whatever it is, or nobody.
        self._pending: deque[Question | Resent | asyncio.Future[Any] | _Late | _Expiry | None] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked_late = False
        self._paused = False
        self._open = False
        self._incomplete_bytes = 0
        self.generation = generation
        self.given_up = 0
        """How many questions got no reply in time."""
        self.heard_at = 0.0
        """Monotonic time of the last reply to a question."""
        self.stalled = asyncio.Event()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.observe: Callable[[float], None] = lambda seconds: None
        """Told how long replies took, once for each batch of them."""

    @property
    def usable(self) -> bool:
        """Whether a question would be answered, as far as one knows."""
        return self._open and len(self._pending) < self._max_pending

    @property
    def full(self) -> bool:
        """Whether there would be an answer, but too many are waited for."""
        return not self.stalled.is_set() and (self._paused or len(self._pending) >= self._max_pending)

    def ask(self, data: bytes, question: Question) -> None:
        """Sends a command whose reply is an integer."""
        if not self._out:
            self._batch.soon(self._flush)
        self._out.append(data)
        self._pending.append(question)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)

    def ask_first(self, data: bytes, question: Question) -> None:
        """The same for a command that an EXPIRE follows."""
        self.ask(data, question)
        self._pending.append(_EXPIRY)

    def ask_again(self, data: bytes, resent: Resent) -> None:
        """The same for a question that has been asked before."""
        self._send(data)
        self._pending.append(resent)

    def tell(self, data: bytes) -> None:
        """Sends a command whose reply matters to nobody."""
        self._send(data)
        self._pending.append(None)

    def command(self, data: bytes) -> asyncio.Future[Any]:
        """Sends a command; the future gets its reply, which may be a ReplyError, or None if none can come."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None:
            future.set_result(None)
            return future
        self._send(data)
        self._pending.append(future)
        return future

    def recovered(self) -> None:
        """Ends a stall."""
        self.stalled.clear()
        self._judge()

    def abort(self, reason: str) -> None:
        """Gives the connection up."""
        if not self.closed.done():
            self.closed.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self._judge()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(str(exc) if exc is not None else "closed by the server")
        self._end()

    def pause_writing(self) -> None:
        self._paused = True
        self._judge()

    def resume_writing(self) -> None:
        self._paused = False
        self._judge()

    def data_received(self, data: bytes) -> None:
        reader, pending = self._reader, self._pending
        last: Flight | None = None
        heard = False
        self._batch.begin()
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                heard = True
                entry = pending.popleft()
                if entry.__class__ is tuple:
                    last, index, check = cast("Question", entry)
                    if reply.__class__ is int:
                        self._fill(last, index, check, reply)
                    else:
                        self._refused(cast("Question", entry), reply)
                elif entry is not None and entry is not _EXPIRY:
                    self._other(cast("Resent | asyncio.Future[Any] | _Late", entry), reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(f"not Redis's protocol: {error}")
        finally:
            self._batch.end()
        if last is not None:
            self.heard_at = now = time.monotonic()
            self.observe(now - last.sent_at)
        self._bound(0 if heard else len(data))

    def _fill(self, flight: Flight, index: int, check: Check, reply: int) -> None:
        if reply == check.hits and check.limit.script is None:
            self._ensure_expiry(check, flight.asked_at)
        flight.replies[index] = reply
        flight.left -= 1
        if not flight.left:
            try:
                flight.settle()
            except Exception:
                # As settle_or_fail does, at the price of one call less for each request.
                flight.unsettled()

    def _ensure_expiry(self, check: Check, asked_at: float) -> None:
        # A counter that begins although its expiry was sent: the server has lost it since, so it needs another. By now
        # the check may count in the window that follows.
        if self._expiring and not (self._pending and self._pending[0] is _EXPIRY):
            self.tell(expire(check, key_at(check, asked_at)))

    def _other(self, entry: Resent | asyncio.Future[Any] | _Late, reply: Any) -> None:
        if isinstance(entry, _Late):
            if reply == entry.check.hits:
                self._ensure_expiry(*entry)
        elif isinstance(entry, asyncio.Future):
            if not entry.done():
                entry.set_result(reply)
        elif entry.open:
            if reply.__class__ is int:
                entry.close()
                # Its expiry goes with it, always.
                flight, index, _ = entry.question
                flight.replies[index] = reply
                lose(flight)
            else:
                self._refused(entry, reply)

    def _refused(self, question: Question | Resent, reply: Any) -> None:
        flight, _, check = question.question if isinstance(question, Resent) else question
        replies = cast("list[int]", reply) if reply.__class__ is list else ()
        if replies and len(replies) == len(check.together):
            if isinstance(question, Resent):
                question.close()
            for (index, _, _), each in zip(check.together, replies, strict=True):
                flight.replies[index] = each
            lose(flight)
            return
        if isinstance(reply, hiredis.ReplyError):
            self._on_error(question, str(reply))
            return
        # Replies and questions are out of step: no count is to be believed from now on.
        self._pending.appendleft(question)
        self.abort(f"the answer to a count is a {reply.__class__.__name__}")

    def _bound(self, incomplete_bytes: int) -> None:
        self._incomplete_bytes = self._incomplete_bytes + incomplete_bytes if incomplete_bytes else 0
        if self._incomplete_bytes > _MAX_REPLY_BYTES:
            self.abort("a reply without end")

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._batch.soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _judge(self) -> None:
        self._open = not (self._transport is None or self._paused or self.stalled.is_set())

    def _look(self) -> None:
        self._timer = None
        oldest = next((cast("Question", entry)[0] for entry in self._pending if entry.__class__ is tuple), None)
        if oldest is None:
            return
        wait_s = oldest.sent_at + self._timeout_s - time.monotonic()
        if wait_s > 0:
            self._looked_late = False
        elif not self._looked_late:
            # If it was this process that stood still, the replies are there: let them be read first.
            self._looked_late = True
            wait_s = 0.001
        else:
            self._looked_late = False
            self.stalled.set()
            self._judge()
            self._give_up(older_than=time.monotonic() - self._timeout_s)
            wait_s = 0.001
        self._timer = self._loop.call_later(wait_s, self._look)

    def _give_up(self, older_than: float) -> None:
        """Gives up what was asked by then. The replies may still come, to nobody."""
        lost: list[Flight] = []
        pending = self._pending
        for _ in range(len(pending)):
            entry = pending.popleft()
            if entry.__class__ is tuple and cast("Question", entry)[0].sent_at <= older_than:
                flight, _, check = cast("Question", entry)
                lost.append(flight)
                entry = _Late(check, flight.asked_at) if check.limit.script is None else None
            pending.append(entry)
        self.given_up += len(lost)
        for flight in lost:
            lose(flight)

    def _end(self) -> None:
        self._transport = None
        self._judge()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._give_up(float("inf"))
        rest = tuple(self._pending)
        self._pending.clear()
        for entry in rest:
            if isinstance(entry, Resent):
                entry.lose()
            elif isinstance(entry, asyncio.Future) and not entry.done():
                entry.set_result(None)
