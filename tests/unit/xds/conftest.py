"""Discovery servers for a test, stopped after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from controlplane.xds import server as xds_server
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.identity import Principal
from controlplane.xds.server import AdsServer, serve_ads

AnyPrincipal = Principal("any")


@pytest.fixture(params=["ngh2", "grpcio"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the streams: a module that asks for this tests each in turn."""
    chosen: Any = request.param
    make = xds_server.load_engine
    monkeypatch.setattr(xds_server, "load_engine", lambda asked: make(asked or chosen))
    return chosen


@pytest.fixture
def start_ads(stack: AsyncExitStack) -> Callable[..., Awaitable[AdsServer]]:
    """`await start_ads(cache, listen=…)` → a running server, by default on loopback for anyone."""

    async def start(
        cache: SnapshotCache, *, listen: Mapping[str, Principal] | None = None, **options: Any
    ) -> AdsServer:
        server = await serve_ads(cache, listen=listen or {"127.0.0.1:0": AnyPrincipal}, **options)
        stack.push_async_callback(server.stop)
        return server

    return start
