"""The event loops of these tests, and servers: the worker runs on uvloop, child processes are watched by either."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import uvloop

from dragoman.grpc_worker import Address, Engine, GrpcServer, Handler, serve
from tests.unit.dragoman.raw_grpc import METHOD


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_grpc_worker"):
        return {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_processes.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def serving() -> AsyncIterator[Callable[..., Awaitable[GrpcServer]]]:
    """`await serving(handler, engine="ngh2", **options)` → a server of one method, closed after the test."""
    servers: list[GrpcServer] = []

    async def start(handler: Handler, *, engine: Engine = "ngh2", **options: Any) -> GrpcServer:
        server = await serve({METHOD: handler}, listen=Address.parse("127.0.0.1:0"), engine=engine, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()
