# pyright: standard
"""The gRPC worker, with the rate limiter behind it, under bytes that no sane peer sends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings

from dragoman.grpc_worker import Address, Call, Engine, GrpcServer, Limits, StatusCode, serve
from dragoman.grpc_worker.ngh2_call import Ngh2Call
from dragoman.grpc_worker.ngh2_connection import Connection
from ratelimit_service.handler import METHOD
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request, response_of
from tests.support.waiting import until
from tests.unit.dragoman.h2_streams import END_STREAM, HEADERS, frames_of, mutated, requests
from tests.unit.dragoman.raw_grpc import RawClient, message

YAML = "{domain: d, descriptors: [{key: k, rate_limit: {unit: second, requests_per_unit: 3}}]}"
ONE = request("d", [("k", "a")])
BODIES = [ONE, request("d", [("k", "b")], [("k", "c" * 300)], hits=2), b"", b"\xff" * 30]
STREAMS = [
    requests(METHOD, BODIES),
    requests(METHOD, [ONE] * 12, parts=3),
    requests("/grpc.health.v1.Health/Check", [b"", b"\x0a\x09ratelimit"]),
    requests(METHOD, [b"x" * 40_000, ONE], parts=2, timeout=b"50m"),
]
PATIENCE_S = 10.0
LIMITS = Limits(max_message_bytes=32 * 1024, handshake_s=0.5, request_s=0.5, max_concurrent_streams=50)
# Where whole calls are to be answered, however busy the machine is meanwhile.
PATIENT = Limits(max_message_bytes=32 * 1024, max_concurrent_streams=50, request_s=30)

seeded = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(slots=True)
class Rig:
    """A worker in an event loop of its own, that a test without one drives."""

    runner: asyncio.Runner
    server: GrpcServer
    answered: Counter[StatusCode] = field(default_factory=Counter[StatusCode])

    def attack(self, *connections: bytes) -> list[bytes]:
        """Sends each its bytes, in turns, ends them, and returns what came back."""
        return self.runner.run(self._attack(connections))

    def is_well(self) -> None:
        """A peer that is sane is served, and nothing is left of the others."""
        self.runner.run(self._is_well())

    async def _attack(self, connections: Sequence[bytes]) -> list[bytes]:
        address = self.server.address
        opened = [await asyncio.open_connection(address.host, address.port) for _ in connections]
        longest = max(map(len, connections), default=0)
        step = max(1, longest // 5)
        for start in range(0, longest, step):
            for (_, writer), data in zip(opened, connections, strict=True):
                # uvloop raises a RuntimeError of its own where the worker has closed the connection.
                with contextlib.suppress(OSError, RuntimeError):
                    writer.write(data[start : start + step])
                    await asyncio.wait_for(writer.drain(), PATIENCE_S)
        said = [await _rest(reader, writer) for reader, writer in opened]
        for _, writer in opened:
            writer.close()
        return said

    async def _is_well(self) -> None:
        client = await RawClient.to(self.server.address)
        answer = await client.answer(client.ask(message(ONE), path=METHOD))
        assert answer.status == StatusCode.OK
        assert response_of(answer.body[5:]).overall_code in (1, 2)
        client.close()
        if hasattr(self.server, "_connections"):
            connections: set[Connection] = self.server._connections  # type: ignore[attr-defined]
            await until(lambda: not connections, what="every connection to be gone")
            del client, answer
            await until(lambda: not alive(Connection) and not alive(Ngh2Call), what="everything to be freed")


async def _rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    said = b""
    # A connection that is gone already tells so with an OSError of no class of its own.
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(PATIENCE_S):
            while part := await reader.read(1 << 16):
                said += part
    return said


def alive(kind: type[object]) -> int:
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


@pytest.fixture(params=["ngh2", "grpcio"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def rig(engine: Engine, limits: Limits, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    yield from running(engine, limits)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR and not _is_the_end(record)]
    assert not errors, errors


def _is_the_end(record: logging.LogRecord) -> bool:
    """Whether grpcio tells of a call that was under way when its event loop ended."""
    kind = record.exc_info[0] if record.exc_info else None
    return record.name.startswith("grpc.") and kind is asyncio.CancelledError


def running(engine: Engine, limits: Limits) -> Iterator[Rig]:
    limiter = Limiter(YAML, MemoryStore(), clock=Clock())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        counted: Counter[StatusCode] = Counter()

        def observe(method: str, code: StatusCode, seconds: float) -> None:
            counted[code] += 1

        listen = Address.parse("127.0.0.1:0")
        methods = {METHOD: limiter.handler}
        server = runner.run(serve(methods, listen=listen, engine=engine, limits=limits, observe=observe))
        try:
            yield Rig(runner, server, counted)
        finally:
            runner.run(server.close())


def assert_sound(said: bytes) -> None:
    """What the worker says is whole frames (but for the last), and one answer to a stream."""
    frames = frames_of(said)
    ends = Counter(frame.stream for frame in frames if frame.kind <= HEADERS and frame.flags & END_STREAM)
    heads = Counter(frame.stream for frame in frames if frame.kind == HEADERS)
    assert all(count == 1 for count in ends.values()), frames
    assert all(count <= 2 for count in heads.values()), frames
    assert not said or frames, said


def test_streams_of_frames_that_were_tampered_with_harm_nobody(rig: Rig) -> None:
    @settings(seeded, max_examples=120 if hasattr(rig.server, "_connections") else 60)
    @given(st.lists(st.sampled_from(STREAMS).flatmap(mutated), min_size=1, max_size=3))
    def attacked(connections: list[bytes]) -> None:
        for said in rig.attack(*connections):
            assert_sound(said)

    attacked()
    rig.is_well()
    assert rig.answered[StatusCode.OK] > 5
    # Only these: nothing is unforeseen.
    assert set(rig.answered) <= {
        *(StatusCode.OK, StatusCode.CANCELLED, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND),
        *(StatusCode.INTERNAL, StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNIMPLEMENTED, StatusCode.DEADLINE_EXCEEDED),
    }


def test_bytes_of_no_sense_harm_nobody(rig: Rig) -> None:
    @settings(seeded, max_examples=40)
    @given(st.lists(st.binary(max_size=2000), min_size=1, max_size=3), st.booleans())
    def attacked(connections: list[bytes], with_preface: bool) -> None:
        begin = requests(METHOD, [])
        head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frame.encode() for frame in begin)
        for said in rig.attack(*((head if with_preface else b"") + data for data in connections)):
            assert_sound(said)

    attacked()
    rig.is_well()


def test_every_place_to_stop_in_is_a_place_to_stop_in(rig: Rig) -> None:
    whole = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frame.encode() for frame in requests(METHOD, [ONE], parts=2))
    for cut in range(0, len(whole), 3):
        (said,) = rig.attack(whole[:cut])
        assert_sound(said)
    rig.is_well()


def test_frames_of_any_size_that_never_come_whole_are_not_waited_for(rig: Rig) -> None:
    frames = requests(METHOD, [ONE])
    head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames[0].encode()
    giants = [
        head + (length.to_bytes(3, "big") + bytes([kind, 4, 0, 0, 0, 1]) + b"\x00" * 1000)
        for length in (16_384, 16_385, (1 << 24) - 1)
        for kind in range(10)
    ]
    for said in rig.attack(*giants):
        assert_sound(said)
    rig.is_well()


@pytest.mark.parametrize("limits", [PATIENT], ids=["patient"])
def test_calls_that_interleave_and_break_off_are_each_answered_once(rig: Rig) -> None:
    @settings(seeded, max_examples=60)
    @given(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=40), st.integers(1, 4))
    def interleaved(order: list[int], parts: int) -> None:
        rig.runner.run(_interleaved(rig, order, parts))

    interleaved()
    rig.is_well()


async def _interleaved(rig: Rig, order: Sequence[int], parts: int) -> None:
    """Four calls of one connection, their frames in this order, some reset on the way."""
    client = await RawClient.to(rig.server.address)
    data = message(ONE)
    size = -(-len(data) // parts)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    streams = [client.ask(b"", end=False, path=METHOD) for _ in range(4)]
    sent = [0] * 4
    for which in order:
        at = sent[which]
        if at < len(pieces):
            client.session.send_data(streams[which], pieces[at], end_stream=at + 1 == len(pieces))
        elif at == len(pieces) + 1:
            with contextlib.suppress(Exception):
                client.session.reset_stream(streams[which])
        sent[which] += 1
        await client.flush()
    whole = [stream for stream, count in zip(streams, sent, strict=True) if count in (len(pieces), len(pieces) + 1)]
    for stream in whole:
        answer = await client.answer(stream)
        assert (answer.status, len(answer.body) > 5) == (0, True)
    client.close()


async def test_a_flood_of_messages_that_are_never_whole_is_held_within_bounds() -> None:
    kept: list[Call] = []
    limits = Limits(max_message_bytes=1 << 20, max_buffered_bytes=1 << 18, request_s=30)
    server: Any = await serve(
        {METHOD: lambda _body, call: kept.append(call)}, listen=Address.parse("127.0.0.1:0"), limits=limits
    )
    client = await RawClient.to(server.address)
    streams = [client.ask(message(b"x" * 60_000, length=1 << 20), end=False, path=METHOD) for _ in range(40)]
    await client.flush()
    await client.until(lambda: any(client.answers[stream].status == 8 for stream in streams))
    (connection,) = server._connections
    assert connection.buffered_bytes <= 1 << 18
    client.close()
    await until(lambda: connection.buffered_bytes == 0 and not connection._calls, what="what was held to be freed")
    await server.close()
    assert not kept
