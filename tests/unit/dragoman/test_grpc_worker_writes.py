"""What a call costs the ngh2 engine: one write for all replies of a loop tick, no task, and few timers."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

import ngh2
import pytest

from dragoman.batch import Batch
from dragoman.grpc_worker import Call, Handler, Limits
from dragoman.grpc_worker.deadlines import Deadlines, Expiring
from dragoman.grpc_worker.ngh2_connection import Connection
from dragoman.grpc_worker.ngh2_shared import Method, Shared
from tests.unit.dragoman.raw_grpc import METHOD, message

pytest.importorskip("ngh2")


class Owner:
    """Accepts everything."""

    def admits(self, client: ssl.SSLObject, peer: str) -> bool:
        return True

    def opened(self, connection: Connection) -> bool:
        return True

    def leaving(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def buffered(self, more_bytes: int) -> None: ...
    def misbehaved(self, peer: str, error: Exception) -> None: ...


class RecordingTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.paused = self.closed = self.aborted = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def connected(handler: Handler) -> tuple[Connection, RecordingTransport, ngh2.Connection]:
    loop = asyncio.get_running_loop()
    methods = {METHOD.encode(): Method(METHOD, handler)}
    connection = Connection(Shared(Owner(), loop, methods, Limits(), None, Deadlines(loop), Batch(loop)))
    transport = RecordingTransport()
    connection.connection_made(cast("asyncio.BaseTransport", transport))
    client = ngh2.Connection(ngh2.Role.CLIENT)
    client.initiate_connection()
    connection.data_received(client.data_to_send())
    client.receive_data(b"".join(transport.written))
    transport.written.clear()
    return connection, transport, client


def requests(client: ngh2.Connection, count: int) -> bytes:
    headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD.encode()), (b":authority", b"worker")]
    for _ in range(count):
        stream = client.send_request([*headers, (b"content-type", b"application/grpc")])
        client.send_data(stream, message(b"hello"), end_stream=True)
    return client.data_to_send()


def replies(client: ngh2.Connection, written: list[bytes]) -> int:
    client.receive_data(b"".join(written))
    events: list[Any] = client.events()
    return sum(isinstance(event, ngh2.TrailersReceived) for event in events)


async def test_requests_of_one_read_are_answered_with_one_write() -> None:
    connection, transport, client = connected(lambda body, call: call.done(body))
    connection.data_received(requests(client, 50))
    assert len(transport.written) == 1
    assert replies(client, transport.written) == 50


async def test_replies_of_one_tick_are_written_at_once() -> None:
    kept: list[Call] = []
    connection, transport, client = connected(lambda _body, call: kept.append(call))
    connection.data_received(requests(client, 50))
    transport.written.clear()
    for call in kept:
        call.done(b"later")
    assert transport.written == []
    await asyncio.sleep(0)
    assert len(transport.written) == 1
    assert replies(client, transport.written) == 50


async def test_a_call_that_is_answered_at_once_makes_no_task() -> None:
    connection, _, client = connected(lambda body, call: call.done(body))
    before = asyncio.all_tasks()
    connection.data_received(requests(client, 50))
    assert asyncio.all_tasks() == before


async def test_nothing_is_read_or_written_while_the_peer_does_not_read() -> None:
    connection, transport, client = connected(lambda body, call: call.done(body))
    connection.pause_writing()
    connection.data_received(requests(client, 5))
    assert (transport.paused, transport.written) == (True, [])
    connection.resume_writing()
    assert not transport.paused
    assert replies(client, transport.written) == 5


async def test_a_connection_whose_last_words_are_not_taken_is_cut() -> None:
    connection, transport, _ = connected(lambda body, call: call.done(body))
    connection.give_way()
    assert (transport.closed, transport.aborted) == (True, False)
    now = asyncio.get_running_loop().time()
    connection.sweep(now + 0.5)
    assert not transport.aborted
    connection.sweep(now + 1.5)
    assert transport.aborted


class Timers:
    """Stands in for a loop: keeps what was asked of it, and its clock moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[tuple[float, Callable[[int], None], int]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[int], None], slot: int) -> None:
        self.due.append((when, callback, slot))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        ready = [each for each in self.due if each[0] <= self.now]
        self.due = [each for each in self.due if each[0] > self.now]
        for _, callback, slot in ready:
            callback(slot)


class Waiting:
    """A call with a deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline: float | None = deadline
        self.slot: set[Expiring] | None = None
        self.expired = False

    def expire(self) -> None:
        self.expired = True


def test_calls_with_deadlines_close_together_share_a_timer() -> None:
    timers = Timers()
    deadlines = Deadlines(cast("asyncio.AbstractEventLoop", timers))
    calls = [Waiting(1000.2 + number / 1e6) for number in range(1000)]
    for call in calls:
        assert call.deadline is not None
        deadlines.watch(call, call.deadline)
    assert len(timers.due) <= 2
    timers.advance(0.19)
    assert not any(call.expired for call in calls)
    timers.advance(0.02)
    assert all(call.expired for call in calls)


def test_a_far_deadline_costs_a_timer_a_minute_and_holds() -> None:
    timers = Timers()
    deadlines = Deadlines(cast("asyncio.AbstractEventLoop", timers))
    call = Waiting(1000.0 + 100)
    deadlines.watch(call, 1100.0)
    timers.advance(61)
    assert (call.expired, len(timers.due)) == (False, 1)
    timers.advance(40)
    assert call.expired


def test_a_call_that_ended_is_not_kept_until_its_deadline() -> None:
    timers = Timers()
    deadlines = Deadlines(cast("asyncio.AbstractEventLoop", timers))
    call = Waiting(1000.2)
    deadlines.watch(call, 1000.2)
    assert call.slot is not None
    call.slot.discard(call)
    timers.advance(1)
    assert not call.expired


async def test_who_sends_much_is_read_on_only_when_others_had_their_turn() -> None:
    connection, transport, client = connected(lambda body, call: call.done(body))
    ping = b"\0\0\x08\x06\x01\0\0\0\0answered"
    connection.data_received(requests(client, 5) + ping * 10_000)
    assert transport.paused
    await asyncio.sleep(0)
    assert not transport.paused
    assert replies(client, transport.written) == 5


async def test_what_was_answered_just_now_is_not_taken_for_what_the_peer_leaves_unread() -> None:
    kept: list[Call] = []
    connection, transport, client = connected(lambda body, call: kept.append(call))
    connection.data_received(requests(client, 3))
    for call in kept:
        call.done(b"at last")
    connection.sweep(asyncio.get_running_loop().time())
    assert connection.unread_bytes == 0
    assert replies(client, transport.written) == 3
