# pyright: basic, reportAttributeAccessIssue=false
"""A real Envoy calls the gRPC worker through its ext_authz filter."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from dragoman.grpc_worker import Address, Call, Engine, GrpcServer, Handler, StatusCode, serve
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.upstream import Upstream
from tests.support.waiting import until

CHECK = "/envoy.service.auth.v3.Authorization/Check"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
StartEnvoy = Callable[..., Awaitable[Envoy]]

ALLOWED = CheckResponse(status={"code": 0}, ok_response={}).SerializeToString()
DENIED = CheckResponse(status={"code": 7}, denied_response={"status": {"code": 403}, "body": "no"}).SerializeToString()


def by_path(body: bytes, call: Call) -> None:
    request = CheckRequest.FromString(body)
    call.done(ALLOWED if request.attributes.request.http.path.startswith("/open") else DENIED)


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[GrpcServer]]]:
    servers: list[GrpcServer] = []

    async def start(handler: Handler, engine: Engine = "ngh2") -> GrpcServer:
        listen = Address.parse(f"unix:{tmp_path}/authz.sock")
        servers.append(await serve({CHECK: handler}, listen=listen, engine=engine))
        return servers[-1]

    yield start
    for server in servers:
        await server.close()


def bootstrap(port: int, upstream: Upstream, server: GrpcServer, *, timeout_s: float) -> dict[str, Any]:
    authorize = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": f"{timeout_s}s"},
        "status_on_error": {"code": 503},
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": f"type.googleapis.com/{MANAGER}",
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": authorize},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    authz = cluster("authz", {"pipe": {"path": server.address.path}})
    authz["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster("up", upstream.endpoint), authz]}}


def cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    # No circuit breaker stands between the test and the worker.
    breakers = {"thresholds": [{"max_requests": 100_000, "max_pending_requests": 100_000, "max_connections": 100_000}]}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "load_assignment": assignment, "circuit_breakers": breakers}


@pytest.mark.parametrize("engine", ["ngh2", "grpcio"])
async def test_envoy_obeys_the_verdicts_of_the_worker(
    engine: Engine, serving: Any, start_envoy: StartEnvoy, upstream: Upstream
) -> None:
    server, port = await serving(by_path, engine), free_port()
    await start_envoy(bootstrap(port, upstream, server, timeout_s=5))
    assert (await fetch(port, "/open/door")).status == 200
    refused = await fetch(port, "/closed")
    assert (refused.status, refused.text) == (403, "no")
    assert upstream.count == 1


async def test_a_status_of_the_worker_is_an_error_to_envoy(
    serving: Any, start_envoy: StartEnvoy, upstream: Upstream
) -> None:
    server, port = await serving(lambda _body, call: call.fail(StatusCode.UNAVAILABLE, "store gone")), free_port()
    envoy = await start_envoy(bootstrap(port, upstream, server, timeout_s=5))
    assert (await fetch(port, "/open")).status == 503
    await envoy.stat_reaches("http.http.ext_authz.error", 1)


async def test_thousands_of_timeouts_of_envoy_do_not_end_its_connection(
    serving: Any, start_envoy: StartEnvoy, upstream: Upstream
) -> None:
    timed_out: list[Call] = []

    def stuck_for_a_while(body: bytes, call: Call) -> None:
        if b"/stuck" in body:
            timed_out.append(call)
        else:
            by_path(body, call)

    server, port = await serving(stuck_for_a_while), free_port()
    envoy = await start_envoy(bootstrap(port, upstream, server, timeout_s=0.02))
    for _ in range(12):
        answers = await asyncio.gather(*(fetch(port, "/stuck") for _ in range(100)))
        assert {answer.status for answer in answers} == {503}
    await until(lambda: all(call.cancelled for call in timed_out), what="every call to be cancelled")
    stats = await envoy.stats("cluster.authz.")
    assert stats["cluster.authz.upstream_rq_tx_reset"] + stats.get("cluster.authz.upstream_rq_timeout", 0) > 1001
    assert stats["cluster.authz.upstream_cx_total"] == 1
    assert stats.get("cluster.authz.upstream_cx_destroy", 0) == 0

    async def recovered() -> bool:
        return (await fetch(port, "/open")).status == 200

    await until(recovered, what="a verdict in time")
