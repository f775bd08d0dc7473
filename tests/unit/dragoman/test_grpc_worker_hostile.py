# pyright: standard
"""What the gRPC worker does with peers that misbehave, stall or break off, and what it puts on the wire."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ngh2
import pytest

from dragoman.grpc_worker import Call, Engine, GrpcServer, Limits, StatusCode
from tests.support.waiting import until
from tests.unit.dragoman.raw_grpc import PREFACE, Answer, RawClient, assert_serves, echo, frame, message

Serve = Callable[..., Awaitable[GrpcServer]]
BOTH = pytest.mark.parametrize("engine", ["ngh2", "grpcio"])

DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9


@BOTH
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00",
        b"GET / HTTP/1.1\r\nhost: worker\r\n\r\n",
        bytes(range(256)) * 64,
        PREFACE + b"\xff" * 4096,
        PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, b"\xff" * 100),
        PREFACE + frame(SETTINGS, 0, 0, b"odd size"[:7]),
    ],
)
async def test_garbage_ends_its_own_connection_and_nothing_else(serving: Serve, engine: Engine, garbage: bytes) -> None:
    server = await serving(echo, engine=engine, limits=Limits(handshake_s=0.2))
    client = await RawClient.to(server.address, start=False)
    await client.send(garbage)
    await client.ended()
    await assert_serves(server)


async def test_data_on_a_stream_that_was_never_opened_ends_the_connection(serving: Serve) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address, start=False)
    await client.send(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(DATA, 0, 1, b"data"))
    await client.ended()
    await assert_serves(server)


async def test_a_connection_that_says_nothing_is_cut(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(handshake_s=0.1))
    client = await RawClient.to(server.address, start=False)
    await client.ended()


async def test_headers_above_the_limit_end_the_connection(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_header_list_bytes=8192))
    client = await RawClient.to(server.address)
    client.ask(message(b""), more=[(b"x-big", b"a" * 9000)])
    await client.flush()
    await client.ended()
    await assert_serves(server)


async def test_endless_continuation_frames_end_the_connection(serving: Serve) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address, start=False)
    await client.send(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 0, 1, b"\x82"))

    async def continue_for_ever() -> None:
        for _ in range(10_000):
            await client.send(frame(CONTINUATION, 0, 1, b""))
            await asyncio.sleep(0)

    with pytest.raises((ConnectionError, RuntimeError)):
        await continue_for_ever()
    await client.ended()
    await assert_serves(server)


@pytest.mark.parametrize("flood", [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, b"")])
async def test_a_flood_of_pings_or_settings_leaves_the_worker_standing(serving: Serve, flood: bytes) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    await client.send(flood * 5_000)
    await assert_serves(server)


@BOTH
async def test_a_request_that_comes_byte_by_byte_is_answered(serving: Serve, engine: Engine) -> None:
    server = await serving(echo, engine=engine)
    client = await RawClient.to(server.address)
    stream = client.ask(message(b"slowly"))
    for byte in client.session.data_to_send():
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer(stream)).body == message(b"slowly")


async def test_a_message_may_span_data_frames_and_end_with_an_empty_one(serving: Serve) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    stream = client.ask(message(b"one two three")[:3], end=False)
    for part in (b"", message(b"one two three")[3:9], message(b"one two three")[9:]):
        await client.flush()
        client.session.send_data(stream, part)
    client.session.end_stream(stream)
    answer = await client.answer(stream)
    assert (answer.status, answer.body) == (0, message(b"one two three"))


async def test_a_request_that_never_comes_whole_is_given_up(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(request_s=0.1))
    client = await RawClient.to(server.address)
    answer = await client.answer(client.ask(message(b"whole")[:6], end=False))
    assert answer.status == StatusCode.DEADLINE_EXCEEDED
    await client.until(lambda: answer.reset is not None)
    await assert_serves(server)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (None, StatusCode.INTERNAL),
        (b"", StatusCode.INTERNAL),
        (b"\0\0", StatusCode.INTERNAL),
        (message(b"short", length=6), StatusCode.INTERNAL),
        (message(b"one") + message(b"two"), StatusCode.INTERNAL),
        (message(b"zip", flags=1), StatusCode.UNIMPLEMENTED),
        (message(b"odd", flags=2), StatusCode.INTERNAL),
        (message(b"", length=1 << 31), StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_what_is_not_one_plain_message_gets_a_status(serving: Serve, data: bytes | None, status: int) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    answer = await client.answer(client.ask(data))
    assert (answer.headers[":status"], answer.status) == ("200", status)
    assert (await client.answer(client.ask(message(b"next")))).status == StatusCode.OK


@pytest.mark.parametrize(
    ("request_with", "status"),
    [
        ({"content_type": "application/json"}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
        ({"method": "PUT"}, "405"),
    ],
)
async def test_what_is_not_grpc_gets_an_http_status(serving: Serve, request_with: dict[str, Any], status: str) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    answer = await client.answer(client.ask(message(b""), **request_with))
    assert answer.headers[":status"] == status


async def test_a_request_to_connect_somewhere_is_refused(serving: Serve) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    connect = [(b":method", b"CONNECT"), (b":authority", b"worker"), (b"content-type", b"application/grpc")]
    stream = client.session.send_request(connect)
    client.answers[stream] = Answer()
    assert (await client.answer(stream)).status == StatusCode.UNIMPLEMENTED
    assert (await client.answer(client.ask(message(b"next")))).status == StatusCode.OK


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
async def test_a_content_type_may_name_the_encoding(serving: Serve, content_type: str) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    assert (await client.answer(client.ask(message(b"x"), content_type=content_type))).status == StatusCode.OK


async def test_a_deadline_passes_without_help_from_the_client(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call))
    client = await RawClient.to(server.address)
    answer = await client.answer(client.ask(message(b""), more=[(b"grpc-timeout", b"50m")]))
    assert answer.status == StatusCode.DEADLINE_EXCEEDED
    assert kept[0].cancelled


async def test_five_thousand_resets_in_a_row_do_not_end_the_connection(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda body, call: call.done(body) if body else kept.append(call))
    client = await RawClient.to(server.address)
    for _ in range(100):
        streams = [client.ask(message(b"")) for _ in range(50)]
        await client.flush()
        for stream in streams:
            client.session.reset_stream(stream)
        await client.flush()
    assert (await client.answer(client.ask(message(b"after all")))).body == message(b"after all")
    await until(lambda: len(kept) == 5000 and all(call.cancelled for call in kept), what="every call to be cancelled")


async def test_streams_above_the_limit_are_refused_and_the_others_served(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call), limits=Limits(max_concurrent_streams=10))
    client = await RawClient.to(server.address)
    streams = [client.ask(message(b"")) for _ in range(10)]
    await client.flush()
    await until(lambda: len(kept) == 10, what="ten calls")
    client.ask(message(b""))  # The library holds it back, as a well-behaved peer does.
    await client.flush()
    for call in kept[:10]:
        call.done(b"")
    assert [(await client.answer(stream)).status for stream in streams] == [0] * 10
    await until(lambda: len(kept) == 11, what="the eleventh call")


async def test_a_peer_that_reads_nothing_does_not_make_the_worker_hold_its_replies(serving: Serve) -> None:
    served = 0

    def big(_body: bytes, call: Call) -> None:
        nonlocal served
        served += 1
        call.done(bytes(1 << 20))

    server = await serving(big, limits=Limits(max_concurrent_streams=50))
    client = await RawClient.to(server.address, window_bytes=1 << 30)
    client.session.set_local_window_size(1 << 30)
    for _ in range(500):
        client.ask(message(b""))
    await client.flush()
    other = await RawClient.to(server.address, window_bytes=1 << 22)
    assert (await other.answer(other.ask(message(b"")))).status == StatusCode.OK
    assert served <= 52


async def test_incomplete_messages_may_not_fill_the_memory(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_buffered_bytes=100_000))
    client = await RawClient.to(server.address)
    streams = [client.ask(message(bytes(30_000), length=60_000), end=False) for _ in range(4)]
    assert (await client.answer(streams[3])).status == StatusCode.RESOURCE_EXHAUSTED
    for stream in streams[:3]:
        client.session.reset_stream(stream)
    assert (await client.answer(client.ask(message(bytes(60_000))))).status == StatusCode.OK


async def test_a_silent_peer_is_pinged_and_then_cut(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(keepalive_time_s=0.1, keepalive_timeout_s=2.0))
    answering = await RawClient.to(server.address)
    await answering.until(lambda: sum(isinstance(event, ngh2.PingReceived) for event in answering.events) >= 3)
    mute = await RawClient.to(server.address, start=False)
    await mute.send(PREFACE + frame(SETTINGS, 0, 0, b""))
    await mute.ended()


async def test_a_ping_is_answered(serving: Serve) -> None:
    server = await serving(echo)
    client = await RawClient.to(server.address)
    client.session.ping(b"are you?")
    await client.flush()
    await client.until(lambda: client.saw(ngh2.PingAcknowledged))


async def test_an_idle_connection_is_closed_with_goaway(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(connection_idle_s=0.1))
    client = await RawClient.to(server.address)
    with pytest.raises(ConnectionError):
        await client.until(lambda: False)
    assert client.saw(ngh2.GoAwayReceived)


async def test_an_old_connection_is_closed_with_goaway_and_serves_what_is_in_flight(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call), limits=Limits(connection_age_s=0.3))
    client = await RawClient.to(server.address)
    stream = client.ask(message(b""))
    await client.flush()
    await client.until(lambda: client.saw(ngh2.GoAwayReceived))
    kept[0].done(b"last")
    assert (await client.answer(stream)).body == message(b"last")
    with pytest.raises(ConnectionError):
        await client.until(lambda: False)


async def test_an_old_connection_whose_calls_do_not_end_is_cut(serving: Serve) -> None:
    kept: list[Call] = []
    limits = Limits(connection_age_s=0.2, connection_age_grace_s=0.2)
    server = await serving(lambda _body, call: kept.append(call), limits=limits)
    client = await RawClient.to(server.address)
    client.ask(message(b""))
    await client.flush()
    with pytest.raises(ConnectionError):
        await client.until(lambda: False)
    assert client.saw(ngh2.GoAwayReceived)
    await until(lambda: kept[0].cancelled, what="the call to be given up")


async def test_draining_says_goaway_serves_what_is_in_flight_and_then_closes(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call))
    client = await RawClient.to(server.address)
    stream = client.ask(message(b""))
    await client.flush()
    await until(lambda: len(kept) == 1, what="the call")
    draining = asyncio.ensure_future(server.drain(5.0))
    await client.until(lambda: client.saw(ngh2.GoAwayReceived))
    with pytest.raises(OSError):
        await RawClient.to(server.address)
    kept[0].done(b"last")
    assert (await client.answer(stream)).body == message(b"last")
    with pytest.raises(ConnectionError):
        await client.until(lambda: False)
    await draining


async def test_a_big_reply_waits_for_the_window_of_the_client(serving: Serve) -> None:
    server = await serving(lambda _body, call: call.done(bytes(3_000_000)))
    client = await RawClient.to(server.address, window_bytes=1000)
    answer = await client.answer(client.ask(message(b"")))
    assert (answer.status, len(answer.body)) == (0, 3_000_005)
