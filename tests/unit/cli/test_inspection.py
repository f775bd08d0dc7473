"""Who is told by the HTTP port why requests go where they go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.load import key_of
from controlplane.engine import Engine
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from dragoman.cli.inspection import inspection_routes
from tests.support import manifests as m


def put_many(engine: Engine) -> None:
    """Gives an engine so much that no answer about it fits into one slice."""
    rules = [m.rule(f"/{number}", "one") for number in range(16)]
    routes = [m.route(f"r{number}", rules, hostnames=[f"h{number}.example.com"]) for number in range(400)]
    documents = [m.gateway_class(), m.gateway(), m.service("one"), *routes]
    keyed = ((key_of(document), document) for document in documents)
    engine.apply(Changes(tuple(RawObject(key, document, Origin("all.yaml")) for key, document in keyed if key)))


async def asked(
    path: str, client: str = "127.0.0.1", find: Callable[[], Engine | None] | None = None, **query: str
) -> Response:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": urlencode(query).encode(),
        "headers": [],
        "client": (client, 40000),
    }
    endpoint = next(
        cast("Any", each.endpoint) for each in inspection_routes(find or (lambda: engine)) if each.path == path
    )
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


async def test_who_asks_while_the_engine_is_taken_away_is_told_that_it_starts() -> None:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    put_many(engine)
    asked_times = 0

    def find() -> Engine | None:
        nonlocal asked_times
        asked_times += 1
        return engine if asked_times < 3 else None

    assert (await asked("/summary", find=find)).status_code == 503
    assert asked_times >= 3


async def test_an_explanation_is_of_one_state_of_the_engine() -> None:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    put_many(engine)
    asking = asyncio.create_task(asked("/explain", find=lambda: engine, url="http://example.com/none"))
    while not asking.done():
        engine.apply(Changes())  # As changes would that come in between slices.
        await asyncio.sleep(0)
    assert asking.result().status_code == 200
