# pyright: standard, reportAttributeAccessIssue=false
"""gRPC's own xDS client (`xds:///HOSTNAME`) finds a service through the discovery server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import json_format

from controlplane.xds.cache import SnapshotCache
from controlplane.xds.identity import GRPC_SUFFIX
from controlplane.xds.resources import LISTENER, Resource
from controlplane.xds.server import AdsServer
from tests.unit.xds.made import cluster, endpoints, route, snapshot

StartAds = Callable[..., Awaitable[AdsServer]]
pytestmark = pytest.mark.usefixtures("engine")

OWNER = "demo/edge"
HOST = "echo.demo"

# In a process of its own: gRPC reads its bootstrap once a process. It calls once for each line that it reads.
_CALLER = """
import sys, grpc
with grpc.insecure_channel("xds:///" + sys.argv[1]) as channel:
    call = channel.unary_unary("/demo.Echo/Say")
    for line in sys.stdin:
        print(call(line.strip().encode(), timeout=10, wait_for_ready=True).decode(), flush=True)
"""


def api_listener(name: str, route_name: str) -> Resource:
    """What gRPC takes for a listener: named as the target, with the router alone."""
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": route_name, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{filters}.http.router.v3.Router"}}],
    }
    message = listener_pb2.Listener()
    json_format.ParseDict({"name": name, "api_listener": {"api_listener": manager}}, message)
    return Resource.of(LISTENER, name, message.SerializeToString(deterministic=True))


@contextlib.asynccontextmanager
async def echo_server(name: str) -> AsyncIterator[int]:
    """A gRPC server on loopback that answers with its name and the request."""

    async def say(request: bytes, _: Any) -> bytes:
        return f"{name}: {request.decode()}".encode()

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("demo.Echo", {"Say": grpc.unary_unary_rpc_method_handler(say)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def caller(xds_address: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """A process that calls through gRPC's xDS client."""
    config = {
        "xds_servers": [
            {"server_uri": xds_address, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
        ],
        "node": {"id": "grpc-1", "cluster": OWNER},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CALLER,
        HOST,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(config)},
        cwd="/",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def call(text: str) -> str:
        stdin.write(f"{text}\n".encode())
        async with asyncio.timeout(15):
            return (await stdout.readline()).decode().strip()

    try:
        yield call
    finally:
        process.kill()
        await process.wait()


async def test_a_grpc_client_follows_the_projection_made_for_it(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    (address,) = (await start_ads(cache)).addresses

    def world(name: str, port: int) -> Any:
        return snapshot(
            api_listener(HOST, "routes"), route("routes", {"": name}), cluster(name), endpoints(name, [port])
        )

    async with echo_server("first") as first, echo_server("second") as second, caller(address) as call:
        # What Envoys of the same owner are sent is not for it.
        cache.publish({OWNER: snapshot(), OWNER + GRPC_SUFFIX: world("c1", first)})
        assert await call("hello") == "first: hello"
        (client,) = cache.clients()
        assert (client.owner, client.protocol) == (OWNER + GRPC_SUFFIX, "sotw")
        assert await cache.wait_settled(timeout_s=5)
        cache.publish({OWNER + GRPC_SUFFIX: world("c2", second)})
        async with asyncio.timeout(10):
            while (answer := await call("again")) != "second: again":
                assert answer == "first: again"
