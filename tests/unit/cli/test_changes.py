"""Who is told by the HTTP port what became of changes, and how `dragoman trace` follows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from starlette.requests import Request
from starlette.responses import Response
from typer.testing import CliRunner

from controlplane.api.meta import ObjectKey
from controlplane.engine import Step
from controlplane.server import ControlPlane
from controlplane.tracing import Tracer
from dragoman.cli import trace
from dragoman.cli.app import app
from dragoman.cli.changes import changes_route


def step(name: str) -> Step:
    return Step({}, {}, (ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "demo", name),), (), 0.002)


def traced(*names: str) -> Tracer:
    tracer = Tracer()
    for name in names:
        with tracer.step(step(name)):
            pass
    return tracer


async def asked(tracer: Tracer | None, client: str = "127.0.0.1", **query: str) -> Response:
    plane = cast("ControlPlane", SimpleNamespace(tracer=tracer)) if tracer is not None else None
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/changes",
        "query_string": urlencode(query).encode(),
        "headers": [],
        "client": (client, 40000),
    }
    return await cast("Any", changes_route(lambda: plane).endpoint)(Request(scope))


async def test_who_does_not_come_by_loopback_is_told_nothing() -> None:
    assert (await asked(traced("a"), "10.0.0.9")).status_code == 403
    assert (await asked(traced("a"))).status_code == 200


async def test_before_there_is_a_control_plane_the_answer_is_503() -> None:
    assert (await asked(None)).status_code == 503


async def test_numbers_that_are_none_are_refused() -> None:
    assert (await asked(traced("a"), last="many")).status_code == 400


async def test_changes_are_chosen_by_object_number_and_how_many() -> None:
    tracer = traced("a", "b", "ab")

    async def ids(**query: str) -> list[int]:
        return [each["id"] for each in json.loads(bytes((await asked(tracer, **query)).body))["changes"]]

    assert await ids() == [1, 2, 3]
    assert await ids(object="demo/a") == [1, 3]
    assert await ids(since="1", last="1") == [3]
    assert await ids(last="-3") == []


def test_following_tells_each_change_once_and_begins_anew_with_the_control_plane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments: Iterator[list[Any]] = iter(
        [
            [(1, "settled"), (2, "under way")],
            [(2, "settled"), (3, "under way")],
            [(3, "settled")],
            [],
            [(1, "settled")],  # The control plane was started again.
            [(1, "settled")],
        ]
    )

    def get(server: str, path: str) -> bytes:
        try:
            told = next(moments)
        except StopIteration:
            raise KeyboardInterrupt from None
        newest = max((number for number, _ in told), default=3)
        changes = [{"id": number, "state": state, "age_ms": 0.0} for number, state in told]
        since = int(path.rpartition("since=")[2])
        return json.dumps({"newest": newest, "changes": [each for each in changes if each["id"] > since]}).encode()

    monkeypatch.setattr(trace, "get", get)
    monkeypatch.setattr(trace, "_LOOK_EVERY_S", 0.0)
    done = CliRunner().invoke(app, ["trace", "--follow", "--json"], prog_name="dragoman")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2, 3, 1]
