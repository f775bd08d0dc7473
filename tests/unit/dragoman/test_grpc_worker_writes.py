"""How often the ngh2 engine writes: a system call for all replies of a loop tick, not one for each."""

import asyncio
from typing import Any, cast

import ngh2
import pytest

from dragoman.grpc_worker import Call, Handler, Limits
from dragoman.grpc_worker.deadlines import Deadlines
from dragoman.grpc_worker.ngh2_connection import Connection, Method, Shared
from tests.unit.dragoman.raw_grpc import METHOD, message

pytest.importorskip("ngh2")


class Owner:
    """Accepts everything."""

    def opened(self, connection: Connection) -> bool:
        return True

    def closed(self, connection: Connection) -> None: ...
    def misbehaved(self, peer: str, error: Exception) -> None: ...


class RecordingTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.paused = False

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
    connection = Connection(Shared(Owner(), loop, methods, Limits(), None, Deadlines(loop)))
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
