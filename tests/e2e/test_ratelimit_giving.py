"""A real Envoy takes hits for a request before it runs, and gives back afterwards what the request did not use."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.test_ratelimit_concurrency import client, per_filter
from tests.e2e.test_ratelimit_envoy import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.upstream import Answer, Request, Upstream
from tests.support.waiting import until

CONFIG = """
domain: shop
descriptors:
  - key: client
    rate_limit: {unit: day, requests_per_unit: 10, algorithm: token_bucket}
"""
# Each request takes six before it runs, and says with its response how many of them it did not use.
UNUSED = {"format": "%RESPONSE_HEADER(x-unused)%"}


def limits(given_back: dict[str, Any]) -> list[dict[str, Any]]:
    who = [client("client")]
    back = {"actions": who, "hits_addend": {**given_back, "is_negative_hits": True}, "apply_on_stream_done": True}
    return [{"actions": who, "hits_addend": {"number": 6}}, back]


class Scene:
    """An Envoy, asked by one client."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, *, unused: int | None = None) -> int:
        """Sends a request whose response says how much was not used, or nothing of it; returns the status."""
        headers = {"x-client": "ada"} | ({} if unused is None else {"x-leave": str(unused)})
        return (await fetch(self._port, headers=headers)).status

    async def left(self) -> int:
        """What a request that takes nothing is told."""
        told = (await fetch(self._port, "/peek", headers={"x-client": "ada"})).header("x-ratelimit-remaining")
        assert told is not None
        return int(told)

    async def has_left(self, hits: int) -> None:
        """Waits until so many are left: Envoy tells it when the stream is done, after the client has its response."""

        async def has_left() -> bool:
            return await self.left() == hits

        await until(has_left, what=f"{hits} hits to be left")


def respond(request: Request) -> Answer:
    unused = dict(request.headers).get("x-leave")
    return Answer(200, headers=(("x-unused", unused),) if unused is not None else ())


@contextlib.asynccontextmanager
async def running(tmp_path: Path, given_back: dict[str, Any], redis: str | None = None) -> AsyncIterator[Scene]:
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock", config=path, drain_s=0.1, redis=redis, store_timeout_s=5
    )
    port = free_port()
    async with worker(settings) as service, Upstream(respond=respond) as upstream:
        given = bootstrap(port=port, upstream=upstream, service_socket=service.address.path)
        per_filter(given, limits(given_back))
        peek = {"actions": [client("client")], "hits_addend": {"number": 0}}
        manager = given["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        (host,) = manager["route_config"]["virtual_hosts"]
        look = copy.deepcopy(host["routes"][0])
        look["match"] = {"path": "/peek"}
        look["typed_per_filter_config"]["envoy.filters.http.ratelimit"]["rate_limits"] = [peek]
        host["routes"].insert(0, look)
        async with Envoy(given):
            if redis is not None:
                await until(lambda: service.store.available, what="the store")
            yield Scene(port)


@pytest.mark.parametrize("counts_in", ["memory", "redis"])
async def test_what_a_request_did_not_use_is_there_for_the_next_one(tmp_path: Path, counts_in: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(RedisServer()) if counts_in == "redis" else None
        scene = await stack.enter_async_context(running(tmp_path, UNUSED, server.unix_url if server else None))
        assert await scene.ask(unused=5) == 200
        await scene.has_left(9)
        assert await scene.ask(unused=0) == 200
        await scene.has_left(3)
        # Refused: it took nothing, and without a response of the backend nothing is given back.
        assert await scene.ask(unused=5) == 429
        assert await scene.left() == 3


async def test_nothing_is_gathered_beyond_the_limit(tmp_path: Path) -> None:
    async with running(tmp_path, UNUSED) as scene:
        assert await scene.ask(unused=1000) == 200
        await scene.has_left(10)
        assert await scene.ask(unused=6) == 200
        await scene.has_left(10)


async def test_a_constant_number_is_given_back_for_refused_requests_too(tmp_path: Path) -> None:
    # Envoy's doing, and the reason why the documentation advises against it.
    async with running(tmp_path, {"number": 2}) as scene:
        assert await scene.ask() == 200
        await scene.has_left(6)
        assert await scene.ask() == 200
        await scene.has_left(2)
        assert await scene.ask() == 429
        await scene.has_left(4)
