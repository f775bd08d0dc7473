"""Who is told the status of everything by the HTTP port."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from controlplane.engine import Engine
from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.status.report import report
from dragoman.cli.status import status_route


async def asked(client: tuple[str, int] | None, *, to_all: bool) -> int:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    plane = cast("ControlPlane", SimpleNamespace(busy=False, report=lambda: report(engine)))
    scope = {"type": "http", "method": "GET", "path": "/status", "headers": [], "client": client}
    endpoint = cast("Any", status_route(lambda: plane, to_all=to_all).endpoint)
    return (await endpoint(Request(scope))).status_code


@pytest.mark.parametrize("client", [("127.0.0.1", 40000), ("::1", 40000), ("::ffff:127.0.0.1", 40000), None])
async def test_who_comes_by_loopback_is_told_everywhere(client: tuple[str, int] | None) -> None:
    assert await asked(client, to_all=False) == 200
    assert await asked(client, to_all=True) == 200


@pytest.mark.parametrize("address", ["10.0.0.9", "2001:db8::9", "::ffff:10.0.0.9", "nonsense"])
async def test_who_comes_from_elsewhere_is_not_told_of_all_namespaces_of_a_cluster(address: str) -> None:
    assert await asked((address, 40000), to_all=False) == 403
    assert await asked((address, 40000), to_all=True) == 200
