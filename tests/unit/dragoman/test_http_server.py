"""The HTTP port of a process, asked over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from dragoman import http_connections
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


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(server: HttpServer, sent: bytes = b"") -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port)
    writer.write(sent)
    return reader, writer


async def cut(streams: Streams) -> None:
    """Waits until the server has cut the connection, whatever it has sent before."""
    reader, writer = streams
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_who_only_connects_makes_room_for_those_who_ask(serving: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "MAX_CONNECTIONS", 8)
    server = await serving(health=Health())
    idle = [await connected(server) for _ in range(30)]
    assert [(await get(server, "/health/live")).status for _ in range(3)] == [200] * 3
    for streams in idle[:20]:
        await cut(streams)
    for _, writer in idle[20:]:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET"])
async def test_who_asks_nothing_for_long_is_cut(serving: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_connections, "KEEP_ALIVE_S", 0.1)
    await cut(await connected(await serving(health=Health()), sent))


async def test_who_does_not_read_the_answer_is_cut(serving: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "KEEP_ALIVE_S", 0.1)
    monkeypatch.setattr(http_connections, "ANSWERED_S", 0.2)
    ended = asyncio.Event()

    async def endless(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1_000_000
                    await asyncio.sleep(0)
            finally:
                ended.set()

        return StreamingResponse(parts())

    server = await serving(health=Health(), routes=[Route("/endless", endless)])
    _, writer = await connected(server, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.wait_for(ended.wait(), 10)
    writer.close()


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
