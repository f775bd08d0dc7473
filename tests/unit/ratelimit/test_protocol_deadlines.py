# pyright: standard
"""Requests whose deadline passes while a store says nothing: answered in time by a status, late by nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from dragoman.grpc_worker import Address, Engine, StatusCode, serve
from ratelimit_service.checks import Check
from ratelimit_service.handler import METHOD
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request, response_of
from tests.support.waiting import until
from tests.unit.dragoman.raw_grpc import RawClient, message

YAML = "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 3}}]}"
ONE, TWO = request("d", [("k", "a")]), request("d", [("k", "b")], [("k", "c")])
BOTH = pytest.mark.parametrize("engine", ["ngh2", "grpcio"])


class StuckStore(MemoryStore):
    """Answers nothing until it is told to, then everything."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = True
        self.flights: list[tuple[Sequence[Check], float, Flight]] = []

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        if self.stuck:
            self.flights.append((checks, now, flight))
        else:
            super().take(checks, now, flight)

    def recover(self) -> None:
        self.stuck = False
        for asked in self.flights:
            super().take(*asked)
        self.flights.clear()


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[tuple[Any, StuckStore]]:
    store = StuckStore()
    limiter = Limiter(YAML, store, clock=Clock())
    server = await serve({METHOD: limiter.handler}, listen=Address.parse("127.0.0.1:0"), engine=engine)
    try:
        yield server, store
    finally:
        await server.close()


@BOTH
async def test_a_deadline_is_kept_though_the_store_is_stuck_and_a_late_reply_goes_to_nobody(engine: Engine) -> None:
    async with serving(engine) as (server, store), grpc.aio.insecure_channel(str(server.address)) as channel:
        call = channel.unary_unary(METHOD)
        started = time.monotonic()
        answers = await asyncio.gather(*(call(body, timeout=0.2) for body in (ONE, TWO)), return_exceptions=True)
        assert 0.15 < time.monotonic() - started < 3
        for answer in answers:
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        store.recover()
        # What the store did late has counted: a limit errs on the safe side.
        assert response_of(await call(ONE, timeout=5)).statuses[0].limit_remaining == 1


async def test_nothing_is_left_of_calls_whose_deadline_has_passed() -> None:
    async with serving("ngh2") as (server, store):
        client = await RawClient.to(server.address)
        streams = [client.ask(message(body), path=METHOD, more=[(b"grpc-timeout", b"30m")]) for body in [ONE, TWO] * 50]
        answers = [await client.answer(stream) for stream in streams]
        assert {answer.status for answer in answers} == {StatusCode.DEADLINE_EXCEEDED}
        (connection,) = server._connections
        assert not connection._calls
        await until(lambda: not server._shared.deadlines._slots, what="the watch over them to end")
        assert len(store.flights) == 100
        store.recover()
        answer = await client.answer(client.ask(message(request("d", [("k", "z")])), path=METHOD))
        assert answer.status == StatusCode.OK
        client.close()


async def test_a_deadline_that_has_passed_already_is_told_at_once() -> None:
    async with serving("ngh2") as (server, _):
        client = await RawClient.to(server.address)
        for timeout in (b"0m", b"1n"):
            answer = await client.answer(client.ask(message(ONE), path=METHOD, more=[(b"grpc-timeout", timeout)]))
            assert answer.status == StatusCode.DEADLINE_EXCEEDED
        client.close()


@BOTH
async def test_a_client_that_leaves_is_forgotten(engine: Engine) -> None:
    async with serving(engine) as (server, store):
        client = await RawClient.to(server.address)
        client.ask(message(ONE), path=METHOD)
        await client.flush()
        await until(lambda: len(store.flights) == 1, what="the call")
        client.close()
        if engine == "ngh2":
            await until(lambda: not server._connections, what="the connection to be gone")
        store.recover()
        other = await RawClient.to(server.address)
        answer = await other.answer(other.ask(message(ONE), path=METHOD))
        assert response_of(answer.body[5:]).statuses[0].limit_remaining == 1
        other.close()
