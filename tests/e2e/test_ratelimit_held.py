# pyright: standard
"""Requests that a real Envoy holds until the rate limiter gives them their turn, also while the limiter drains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from ratelimit_service.handler import METHOD
from ratelimit_service.main import Worker, worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.test_ratelimit_envoy import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.ratelimit import request, response_of
from tests.support.upstream import Upstream
from tests.support.waiting import until

CONFIG = """
domain: shop
descriptors:
  - key: client
    rate_limit: {unit: second, requests_per_unit: 5, algorithm: leaky_bucket, delay: 700ms}
  - key: burst
    rate_limit: {unit: minute, requests_per_unit: 1, algorithm: leaky_bucket, delay: 60s}
"""


@pytest.fixture(params=["ngh2", "grpcio"])
async def service(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    settings = RateLimitSettings(listen=f"unix:{tmp_path}/rl.sock", config=path, drain_s=0.1, engine=request.param)
    async with worker(settings) as serving:
        yield serving


@pytest.fixture
async def port(service: Worker) -> AsyncIterator[int]:
    number = free_port()
    async with (
        Upstream() as upstream,
        Envoy(bootstrap(port=number, upstream=upstream, service_socket=service.address.path)),
    ):
        yield number


async def test_requests_that_come_at_once_go_on_at_an_even_rate_and_the_last_is_refused(port: int) -> None:
    async def one(client: str) -> tuple[int, float]:
        began = time.monotonic()
        status = (await fetch(port, headers={"x-client": client})).status
        return status, time.monotonic() - began

    found, admitted = [], []
    for client in ("ada", "bob", "eve", "joe"):
        found = await asyncio.gather(*(one(client) for _ in range(6)))
        admitted = sorted(took_s for status, took_s in found if status == 200)
        # On a busy machine they may have come one after another.
        if len(admitted) < 6 and admitted[-1] >= 0.55:
            break
    # As far apart as the turns are: the last of those who were let in waited for three of them.
    assert len(admitted) in (4, 5)
    assert admitted[-1] >= 0.55
    assert {status for status, _ in found} == {200, 429}


async def test_a_turn_that_comes_after_envoy_gives_up_is_refused_and_not_waited_for(port: int) -> None:
    # The filter's time-out is 5 s, the next turn a minute away.
    assert (await fetch(port, headers={"x-burst": "ada"})).status == 200
    began = time.monotonic()
    refused = await fetch(port, headers={"x-burst": "ada"})
    assert refused.status == 429
    assert 50 <= int(refused.header("retry-after") or 0) <= 56
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("engine", ["ngh2", "grpcio"])
async def test_held_answers_are_given_while_the_service_drains(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    settings = RateLimitSettings(listen=f"unix:{tmp_path}/rl.sock", config=path, drain_s=10, engine=engine)
    body = request("shop", [("client", "x")])
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/rl.sock") as channel:
        call: Any = channel.unary_unary(METHOD)
        async with worker(settings) as serving:
            held = [asyncio.ensure_future(call(body)) for _ in range(3)]
            await until(lambda: serving.service.waiting == 2, what="two requests to wait")
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert [response_of(await answer).overall_code for answer in held] == [1, 1, 1]
