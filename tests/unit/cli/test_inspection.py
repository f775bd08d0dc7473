"""Who is told by the HTTP port why requests go where they go."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from starlette.requests import Request
from starlette.responses import Response

from controlplane.engine import Engine
from controlplane.provision.binding import bind
from dragoman.cli.inspection import inspection_routes


async def asked(path: str, client: str = "127.0.0.1", **query: str) -> Response:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": urlencode(query).encode(),
        "headers": [],
        "client": (client, 40000),
    }
    endpoint = next(cast("Any", each.endpoint) for each in inspection_routes(lambda: engine) if each.path == path)
    return await endpoint(Request(scope))


@pytest.mark.parametrize("path", ["/explain", "/summary"])
async def test_who_does_not_come_by_loopback_is_told_nothing(path: str) -> None:
    assert (await asked(path, "10.0.0.9", url="http://example.com/")).status_code == 403
    assert (await asked(path, url="http://example.com/")).status_code == 200


async def test_a_question_that_cannot_be_read_is_answered_with_what_is_wrong() -> None:
    answer = await asked("/explain", url="ftp://example.com/")
    assert answer.status_code == 400
    assert "expected http://HOST/PATH" in json.loads(bytes(answer.body))["error"]


async def test_without_any_gateway_a_request_reaches_nobody() -> None:
    answer = await asked("/explain", url="http://example.com/")
    assert json.loads(bytes(answer.body))["outcome"]["kind"] == "unreachable"
