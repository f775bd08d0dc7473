# pyright: standard
"""What a real Envoy makes of the limiter's headers, metadata and silence."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.grpc_worker import Address, Call, Engine, serve
from ratelimit_service.checks import Check
from ratelimit_service.handler import METHOD, RateLimiter
from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.memory import MemoryStore
from tests.e2e.test_ratelimit_envoy import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.ratelimit import Limiter
from tests.support.upstream import Upstream
from tests.support.waiting import until

CONFIG = """
domain: shop
descriptors:
  - {key: client, rate_limit: {unit: day, requests_per_unit: 2, name: 'each "client"'}}
  - {key: watched, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
"""


@asynccontextmanager
async def envoy(socket: Path, *, timeout: str = "5s") -> AsyncGenerator[int]:
    """An Envoy that asks the service on the socket, and shows the metadata that it has of it in a header."""
    port = free_port()
    async with Upstream() as upstream:
        given = bootstrap(port=port, upstream=upstream, service_socket=str(socket))
        manager = given["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"][0]["typed_config"]["timeout"] = timeout
        metadata = "%DYNAMIC_METADATA(envoy.filters.http.ratelimit)%"
        manager["route_config"]["response_headers_to_add"] = [{"header": {"key": "x-metadata", "value": metadata}}]
        async with Envoy(given):
            yield port


async def test_headers_of_both_drafts_and_the_metadata_reach_their_reader(tmp_path: Path) -> None:
    config = tmp_path / "shop.yaml"
    config.write_text(CONFIG)
    socket = tmp_path / "rl.sock"
    settings = RateLimitSettings.model_validate(
        {"listen": f"unix:{socket}", "config": config, "response_headers": "both", "response_metadata": True}
    )
    async with worker(settings), envoy(socket) as port:
        asked = {"x-client": "ada", "x-watched": "ada"}
        answers = [await fetch(port, headers=asked) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        for left, answer in zip((1, 0, 0), answers, strict=True):
            assert answer.header("ratelimit-policy") == r'"each \"client\"";q=2;w=86400, "1-per-day";q=1;w=86400'
            assert (answer.header("ratelimit") or "").startswith(rf'"each \"client\"";r={left};t=')
            assert len(answer.all("x-ratelimit-remaining")) == 1
        shown: list[Any] = [json.loads(answer.header("x-metadata") or "{}") for answer in answers]
        assert shown[0]["domain"] == "shop"
        assert shown[0]["descriptors"] == [{"entries": ["client=ada"]}, {"entries": ["watched=ada"]}]
        assert [each.get("quotaModeViolations") for each in shown[:2]] == [None, [1]]


class StuckStore(MemoryStore):
    """A store that keeps what it is asked, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.flights: list[tuple[Sequence[Check], float, Flight]] = []

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        self.flights.append((checks, now, flight))

    def answer(self) -> None:
        for checks, now, flight in self.flights:
            super().take(checks, now, flight)
        self.flights.clear()


@pytest.mark.parametrize("engine", ["ngh2", "grpcio"])
async def test_envoy_sends_its_time_out_and_gets_no_answer_after_it(tmp_path: Path, engine: Engine) -> None:
    store = StuckStore()
    limiter: RateLimiter = Limiter(CONFIG, store, clock=time.time).handler  # type: ignore[arg-type]
    calls: list[Call] = []

    def handler(body: bytes, call: Call) -> None:
        calls.append(call)
        limiter(body, call)

    socket = tmp_path / "rl.sock"
    server = await serve({METHOD: handler}, listen=Address.parse(f"unix:{socket}"), engine=engine)
    try:
        async with envoy(socket, timeout="0.3s") as port:
            loop = asyncio.get_running_loop()
            asked, before = asyncio.ensure_future(fetch(port, headers={"x-client": "ada"})), loop.time()
            await until(lambda: bool(calls), what="the call")
            assert calls[0].deadline is not None
            assert before < calls[0].deadline <= loop.time() + 0.3
            # The filter fails open: the request passes once its time is up.
            assert (await asked).status == 200
            assert loop.time() - before >= 0.25
            await until(lambda: calls[0].cancelled, what="the call to be given up")
            store.answer()
            # The next one is answered as if nothing had been.
            asked = asyncio.ensure_future(fetch(port, headers={"x-client": "ada"}))
            await until(lambda: bool(store.flights), what="the next call")
            store.answer()
            assert (await asked).header("x-ratelimit-remaining") == "0"
    finally:
        await server.close()
