"""A limit on what is in flight follows the requests of a real Envoy: from the ask until the stream is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.test_ratelimit_envoy import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import Response, fetch
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.upstream import Upstream
from tests.support.waiting import until

PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"
CONFIG = """
domain: shop
descriptors:
  - key: client
    rate_limit: {unit: minute, requests_per_unit: 2, algorithm: concurrency, lease_time: 60s}
  - key: forgetful
    rate_limit: {unit: second, requests_per_unit: 1, algorithm: concurrency, lease_time: 700ms}
"""
HEADER = {"request_headers": {"header_name": "x-request-id", "descriptor_key": "dragoman.request"}}
EVERYWHERE = [{"address_prefix": "0.0.0.0", "prefix_len": 0}, {"address_prefix": "::", "prefix_len": 0}]
STREAM = {
    "remote_address_match": {
        "descriptor_key": "dragoman.request",
        "descriptor_value": "%STREAM_ID%",
        "address_matcher": {"ranges": EVERYWHERE},
    }
}
DONE = {"generic_key": {"descriptor_key": "dragoman.done", "descriptor_value": "1"}}


def client(name: str) -> dict[str, Any]:
    return {"request_headers": {"header_name": f"x-{name}", "descriptor_key": name}}


def limits(identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The ask, and what is sent when the stream is done; and an ask without an end."""
    return [
        {"actions": [client("client"), identity]},
        {"actions": [client("client"), identity, DONE], "apply_on_stream_done": True},
        {"actions": [client("forgetful"), identity]},
    ]


def on_route(given: dict[str, Any], rate_limits: list[dict[str, Any]]) -> None:
    _route(given)["route"]["rate_limits"] = rate_limits


def per_filter(given: dict[str, Any], rate_limits: list[dict[str, Any]]) -> None:
    route = _route(given)
    del route["route"]["rate_limits"]
    route["typed_per_filter_config"] = {
        "envoy.filters.http.ratelimit": {"@type": PER_ROUTE, "rate_limits": rate_limits},
    }


def _route(given: dict[str, Any]) -> dict[str, Any]:
    manager = given["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"][0]["routes"][0]


class Scene:
    """An Envoy between clients and an upstream."""

    def __init__(self, port: int, upstream: Upstream) -> None:
        self.port = port
        self.upstream = upstream

    async def get(self, name: str = "client", **headers: str) -> Response:
        return await fetch(self.port, headers={f"x-{name}": "ada", **headers})

    async def reached(self, count: int) -> None:
        await until(lambda: self.upstream.count == count, what=f"{count} requests at the upstream")


@pytest.fixture(params=[(on_route, HEADER), (on_route, STREAM), (per_filter, HEADER), (per_filter, STREAM)])
async def scene(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    place, identity = request.param
    async with running(tmp_path, place, identity) as found:
        yield found


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, place: Any, identity: dict[str, Any], redis: str | None = None
) -> AsyncIterator[Scene]:
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock", config=path, drain_s=0.1, redis=redis, store_timeout_s=5
    )
    port = free_port()
    async with worker(settings) as service, Upstream() as upstream:
        given = bootstrap(port=port, upstream=upstream, service_socket=service.address.path)
        place(given, limits(identity))
        async with Envoy(given):
            if redis is not None:
                await until(lambda: service.store.available, what="the store")
            yield Scene(port, upstream)


async def test_a_request_more_than_may_be_in_flight_is_refused_until_one_has_ended(scene: Scene) -> None:
    scene.upstream.be_slow(1.0)
    running = [asyncio.create_task(scene.get()) for _ in range(2)]
    await scene.reached(2)
    refused = await scene.get()
    assert refused.status == 429
    assert refused.header("retry-after") == "1"
    assert [(await task).status for task in running] == [200, 200]
    scene.upstream.be_slow(0)

    async def admitted() -> bool:
        return (await scene.get()).status == 200

    await until(admitted, what="room for the next request")
    for _ in range(10):
        await until(admitted, what="room for one after the other")


async def test_a_client_that_leaves_makes_room(scene: Scene) -> None:
    scene.upstream.be_slow(30)
    leaving = [asyncio.create_task(scene.get()) for _ in range(2)]
    await scene.reached(2)
    assert (await scene.get()).status == 429
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    scene.upstream.be_slow(0)

    async def admitted() -> bool:
        return (await scene.get()).status == 200

    await until(admitted, what="room after the clients left")


async def test_a_request_that_nobody_says_has_ended_counts_until_its_lease_ends(scene: Scene) -> None:
    assert (await scene.get("forgetful")).status == 200
    assert (await scene.get("forgetful")).status == 429

    async def admitted() -> bool:
        return (await scene.get("forgetful")).status == 200

    await until(admitted, what="the end of the lease", within_s=5)


async def test_redis_counts_who_is_in_flight_for_all_workers(tmp_path: Path) -> None:
    async with RedisServer() as redis, running(tmp_path, per_filter, STREAM, redis.unix_url) as scene:
        await test_a_request_more_than_may_be_in_flight_is_refused_until_one_has_ended(scene)
