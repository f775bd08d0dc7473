"""Loads a unary gRPC server, as h2load does, or at a rate, and tells what a call costs it in CPU time."""

from __future__ import annotations

import argparse
import asyncio
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import ngh2
import uvloop
from ngh2 import NGH2Error, StreamClosed, TrailersReceived

from benchmarks.cpu import cpu_s
from dragoman.grpc_worker import Address

WINDOW_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `in_flight` calls at any time, until `requests` have been sent or `seconds` have passed.

    With `per_s` a call begins when its time has come, however many are in flight, and counts from that time.
    """

    method: str
    body: bytes
    body_of: Callable[[int], bytes] | None = None
    """The body of the n-th call, from 0, where they are not all the same."""
    in_flight: int = 32
    per_s: float | None = None
    connections: int = 1
    requests: int | None = None
    seconds: float | None = None
    timeout_ms: int | None = None
    """Sent as grpc-timeout, as Envoy does; None sends no such header."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came back."""

    requests: int
    failed: int
    """Calls with a grpc-status other than 0, or without any."""
    seconds: float
    p50_ms: float
    p99_ms: float
    longest_ms: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


async def run(address: Address | Sequence[Address], load: Load, *, tls: ssl.SSLContext | None = None) -> Result:
    """Sends the load, spread over the addresses.

    Raises ConnectionError when the server ends a connection, OSError when it can't be reached.
    """
    if (load.requests is None) == (load.seconds is None):
        raise ValueError("a load ends after either a number of requests or a number of seconds")
    loop = asyncio.get_running_loop()
    state = _State(load, done=loop.create_future())
    clients: list[_Client] = []
    addresses = [address] if isinstance(address, Address) else address
    connections = max(load.connections, len(addresses))
    share = max(1, load.in_flight // connections)
    try:
        for index in range(connections):
            clients.append(await _connect(state, addresses[index % len(addresses)], share, tls))
        state.started = time.perf_counter()
        if load.seconds is not None:
            loop.call_later(load.seconds, state.stop)
        if load.per_s is not None:
            await _paced(state, clients, load.per_s)
        else:
            for client in clients:
                client.start()
        await state.done
        seconds = time.perf_counter() - state.started
    finally:
        for client in clients:
            client.close()
    return _result(state, seconds)


async def _paced(state: _State, clients: Sequence[_Client], per_s: float) -> None:
    sent = 0
    while state.to_send > 0 and not state.done.done():
        due = int((time.perf_counter() - state.started) * per_s) - sent
        for index in range(min(due, state.to_send)):
            clients[(sent + index) % len(clients)].send(since=state.started + (sent + index) / per_s)
        sent += max(0, due)
        for client in clients:
            client.flush()
        await asyncio.sleep(0.001)
    state.settle()


class _State:
    """What the connections of one run share."""

    def __init__(self, load: Load, done: asyncio.Future[None]) -> None:
        self.load = load
        self.done = done
        self.to_send = load.requests if load.requests is not None else 1 << 62
        self.sent = 0
        self.open = 0
        self.failed = 0
        self.latencies_s: list[float] = []
        self.started = 0.0

    def stop(self) -> None:
        self.to_send = 0

    def settle(self) -> None:
        if self.to_send <= 0 and self.open == 0 and not self.done.done():
            self.done.set_result(None)


class _Client(asyncio.Protocol):
    def __init__(self, state: _State, in_flight: int) -> None:
        load = state.load
        self._state = state
        self._in_flight = in_flight
        self._message = _framed(load.body)
        self._body_of = load.body_of
        self._paced = load.per_s is not None
        timeout = [] if load.timeout_ms is None else [(b"grpc-timeout", b"%dm" % load.timeout_ms)]
        self._headers = [
            (b":method", b"POST"),
            (b":path", load.method.encode()),
            (b":authority", b"bench"),
            (b":scheme", b"http"),
            (b"te", b"trailers"),
            *timeout,
            (b"content-type", b"application/grpc"),
        ]
        self._session = ngh2.Connection(
            ngh2.Role.CLIENT, ngh2.Configuration(peer_max_concurrent_streams=max(100, in_flight))
        )
        self._sent_at: dict[int, float] = {}
        self._transport = cast("asyncio.Transport", None)
        self._ok: set[int] = set()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._session.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: WINDOW_BYTES, ngh2.Setting.ENABLE_PUSH: 0})
        self._session.set_local_window_size(WINDOW_BYTES)
        self.flush()

    def start(self) -> None:
        for _ in range(self._in_flight):
            self._send_next()
        self.flush()

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._session.receive_data(data)
            for event in self._session.events():
                self._take(event)
            self.flush()
        except NGH2Error as fault:
            self._fail(fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"the server ended the connection: {exc or 'closed'}"))

    def _take(self, event: ngh2.Event) -> None:
        kind = type(event)
        if kind is StreamClosed:
            self._closed(cast("StreamClosed", event).stream_id)
        elif kind is TrailersReceived:
            trailers = cast("TrailersReceived", event)
            if (b"grpc-status", b"0") in trailers.headers:
                self._ok.add(trailers.stream_id)
        elif kind is ngh2.SettingsReceived and not self.ready.done():
            self.ready.set_result(None)

    def _closed(self, stream: int) -> None:
        state = self._state
        state.latencies_s.append(time.perf_counter() - self._sent_at.pop(stream))
        state.open -= 1
        if stream in self._ok:
            self._ok.remove(stream)
        else:
            state.failed += 1
        if self._paced:
            state.settle()
        else:
            self._send_next()

    def _send_next(self) -> None:
        if self._state.to_send > 0:
            self.send(since=time.perf_counter())
        else:
            self._state.settle()

    def send(self, *, since: float) -> None:
        """Sends one call, whose time counts from `since`."""
        state = self._state
        state.to_send -= 1
        state.open += 1
        message = self._message if self._body_of is None else _framed(self._body_of(state.sent))
        state.sent += 1
        stream = self._session.send_request(self._headers)
        self._session.send_data(stream, message, end_stream=True)
        self._sent_at[stream] = since

    def flush(self) -> None:
        """Writes what is to be sent."""
        out = self._session.data_to_send()
        if out:
            self._transport.write(out)

    def _fail(self, fault: Exception) -> None:
        for waiting in (self.ready, self._state.done):
            if not waiting.done():
                waiting.set_exception(fault)


def _framed(body: bytes) -> bytes:
    return struct.pack(">BI", 0, len(body)) + body


async def _connect(state: _State, address: Address, in_flight: int, tls: ssl.SSLContext | None) -> _Client:
    loop = asyncio.get_running_loop()
    if address.is_unix:
        _, client = await loop.create_unix_connection(lambda: _Client(state, in_flight), address.path, ssl=tls)
    else:
        _, client = await loop.create_connection(lambda: _Client(state, in_flight), address.host, address.port, ssl=tls)
    await client.ready
    return client


def _result(state: _State, seconds: float) -> Result:
    ordered = sorted(state.latencies_s) or [0.0]
    return Result(
        requests=len(state.latencies_s),
        failed=state.failed,
        seconds=seconds,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
        longest_ms=ordered[-1] * 1000,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", type=Address.parse, help="HOST:PORT or unix:PATH")
    parser.add_argument("--method", required=True, help="/package.Service/Method")
    parser.add_argument("--body", type=Path, help="file with the encoded request (default: an empty one)")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--timeout-ms", type=int)
    parser.add_argument("--pid", type=int, help="a process whose tree's CPU time per call is to be told")
    given = parser.parse_args()
    load = Load(
        method=given.method,
        body=given.body.read_bytes() if given.body else b"",
        in_flight=given.in_flight,
        connections=given.connections,
        requests=given.requests,
        seconds=given.seconds if given.seconds or given.requests else 5.0,
        timeout_ms=given.timeout_ms,
    )
    before_s = cpu_s(given.pid) if given.pid else 0.0
    result = uvloop.run(run(given.address, load))
    print(f"{result.requests_per_s:,.0f} requests/s, p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms")
    print(f"{result.requests} calls, {result.failed} failed")
    if given.pid:
        print(f"{(cpu_s(given.pid) - before_s) / result.requests * 1e6:.1f} µs of CPU per call")


if __name__ == "__main__":
    main()
