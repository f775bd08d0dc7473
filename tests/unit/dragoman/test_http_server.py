"""The HTTP port of a process, asked over real sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dragoman.grpc_worker import Address
from dragoman.http_server import Health, HttpServer, serve_http
from dragoman.metrics import new_registry
from tests.support.http import fetch

Serve = Callable[..., Awaitable[HttpServer]]


@pytest.fixture
async def serving() -> AsyncIterator[Serve]:
    servers: list[HttpServer] = []

    async def start(**options: Any) -> HttpServer:
        servers.append(await serve_http(**options))
        return servers[-1]

    yield start
    for server in servers:
        await server.close()


async def get(server: HttpServer, path: str) -> Any:
    return await fetch(server.address.port, path, unix_path=server.address.path or None)


async def test_it_is_bound_to_loopback_unless_told_otherwise(serving: Serve) -> None:
    server = await serving(health=Health())
    assert server.address.is_loopback
    assert (await get(server, "/health/live")).status == 200


async def test_it_is_ready_once_started_and_all_checks_hold_and_says_which_does_not(serving: Serve) -> None:
    health, reachable = Health(), False
    health.set("config", False)
    health.watch("store", lambda: reachable or "connection refused")
    server = await serving(health=health)
    assert (await get(server, "/health/startup")).status == 503
    health.started()
    assert (await get(server, "/health/startup")).status == 200
    health.set("config", True)
    refused = await get(server, "/health/ready")
    assert refused.status == 503
    assert refused.json() == {
        "status": "not ready",
        "failing": ["store"],
        "checks": {"config": "ok", "store": "connection refused"},
    }
    reachable = True
    assert (await get(server, "/health/ready")).json()["status"] == "ready"


async def test_a_check_that_fails_is_a_check_that_does_not_hold(serving: Serve) -> None:
    health = Health()
    health.started()
    health.watch("store", lambda: bool(1 / 0))
    answer = await get(await serving(health=health), "/health/ready")
    assert answer.json()["checks"] == {"store": "the check failed: ZeroDivisionError"}


async def test_while_it_drains_it_is_live_but_not_ready(serving: Serve) -> None:
    health = Health()
    health.started()
    server = await serving(health=health)
    health.drain()
    assert (await get(server, "/health/live")).status == 200
    assert ((await get(server, "/health/ready")).status, health.body()["status"]) == (503, "draining")


async def test_metrics_are_served_in_the_text_format(serving: Serve) -> None:
    server = await serving(health=Health(), registry=new_registry())
    answer = await get(server, "/metrics")
    assert "process_cpu_seconds_total" in answer.text
    assert answer.header("content-type").startswith("text/plain")


async def test_the_owner_may_add_routes(serving: Serve) -> None:
    async def status(request: Request) -> Response:
        return PlainTextResponse("fine")

    server = await serving(health=Health(), routes=[Route("/status", status)])
    assert (await get(server, "/status")).text == "fine"
    assert (await get(server, "/metrics")).status == 404


async def test_it_serves_on_a_unix_socket_for_its_owner_alone(serving: Serve, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    server = await serving(health=Health(), listen=Address(path=str(path)))
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await get(server, "/health/live")).status == 200
    await server.close()
    assert not path.exists()


async def test_a_port_that_is_taken_is_an_error_that_names_it(serving: Serve) -> None:
    server = await serving(health=Health())
    with pytest.raises(OSError, match=str(server.address)):
        await serving(health=Health(), listen=server.address)


def test_it_serves_on_uvloop_too(tmp_path: Path) -> None:
    async def ask() -> list[int]:
        server = await serve_http(health=Health(), listen=Address(path=str(tmp_path / "http.sock")))
        statuses = [(await get(server, "/health/live")).status, (await get(server, "/nothing")).status]
        await server.close()
        return statuses

    assert uvloop.run(ask()) == [200, 404]
