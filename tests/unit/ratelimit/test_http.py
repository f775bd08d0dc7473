# pyright: standard, reportAttributeAccessIssue=false
"""The HTTP endpoints beside health and metrics, asked of a real worker, and of a pool of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dragoman.grpc_worker import Call
from dragoman.http_server import Health, serve_http
from ratelimit_service import http
from ratelimit_service.handler import METHOD
from ratelimit_service.main import Worker, worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.http import fetch
from tests.support.waiting import until
from tests.unit.dragoman.raw_grpc import RawClient, message

CONFIG = """
domain: shop
descriptors:
  - key: path
    value: /search
    rate_limit: {unit: hour, requests_per_unit: 2, name: searches}
  - key: client
    shadow_mode: true
    rate_limit: {unit: second, requests_per_unit: 5, algorithm: token_bucket, burst: 9}
  - {key: internal, rate_limit: {unlimited: true}}
"""
SEARCH = {"domain": "shop", "descriptors": [{"entries": [{"key": "path", "value": "/search"}]}]}

Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def started(config: str = CONFIG, **options: Any) -> Worker:
            (tmp_path / "limits.yaml").write_text(config)
            given = {"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "config": tmp_path / "limits.yaml", **options}
            return await stack.enter_async_context(worker(RateLimitSettings(**given, drain_s=1)))

        yield started


async def ask(given: Worker, path: str, body: object = None, **options: Any) -> Any:
    assert given.http is not None
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    method = options.pop("method", "POST" if data is not None else "GET")
    return await fetch(given.http.port, path, method=method, body=data or b"", **options)


async def test_json_decides_as_grpc_does(start: Start) -> None:
    given = await start()
    answers = [await ask(given, "/json", SEARCH) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    first, last = (json_format.Parse(answer.body, rls_pb2.RateLimitResponse()) for answer in answers[::2])
    assert first.overall_code == 1
    assert first.statuses[0].current_limit.name == "searches"
    assert answers[0].json()["overallCode"] == "OK"
    assert answers[2].json()["statuses"][0]["code"] == "OVER_LIMIT"
    assert last.raw_body
    assert answers[0].header("content-type") == "application/json"


async def test_json_takes_the_names_of_the_fields_as_they_are_in_the_proto_too(start: Start) -> None:
    given = await start()
    asked = {**SEARCH, "hits_addend": 3}
    assert (await ask(given, "/json", asked)).status == 429
    assert (await ask(given, "/json", {**SEARCH, "hitsAddend": 1})).status == 429


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 60_000,
        b'{"domain": "shop"}',
        b'{"descriptors": [{"entries": [{"key": "path"}]}]}',
        b'{"domain": "shop", "unknown": 1}',
        b'{"domain": 7}',
        b'{"domain": "shop", "hitsAddend": -1}',
        b'{"domain": "shop", "hitsAddend": ' + b"9" * 5000 + b"}",
        b'{"domain": "\\ud800", "descriptors": [{"entries": [{"key": "path"}]}]}',
    ],
    ids=[
        "nothing",
        "bytes",
        "a list",
        "deep",
        "no descriptors",
        "no domain",
        "unknown",
        "type",
        "sign",
        "long",
        "half",
    ],
)
async def test_what_is_not_a_request_is_a_bad_request(start: Start, body: bytes) -> None:
    given = await start()
    answer = await ask(given, "/json", body, method="POST")
    assert answer.status == 400
    assert answer.text.startswith("Bad Request")
    assert (await ask(given, "/json", SEARCH)).status == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"null", "it must be an object"),
        (b'{"domain": "d", "nonsense": 1}', 'no field named "nonsense"'),
        (b'{"descriptors": [{"limit": {"unit": "EON"}}]}', "descriptors[0].limit.unit"),
        (b'{"\x1b[31m\n": 1}', "Invalid control character"),
        (b'{"' + b"x" * 5000 + b'": 1}', "no field named"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong_in_a_line(start: Start, body: bytes, why: str) -> None:
    answer = await ask(await start(), "/json", body, method="POST")
    assert why in answer.text
    assert answer.text.endswith("\n")
    assert answer.text[:-1].isprintable()
    assert len(answer.text) < 400


async def test_json_is_for_post_alone_and_for_bodies_of_a_bounded_size(start: Start) -> None:
    given = await start()
    assert (await ask(given, "/json")).status == 405
    answer = await ask(given, "/json", b" " * (http.MAX_BODY_BYTES + 1))
    assert answer.status == 413


async def test_a_body_that_does_not_come_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_WITHIN_S", 0.05)
    given = await start()
    assert given.http is not None
    reader, writer = await asyncio.open_connection(given.http.host, given.http.port)
    writer.write(b"POST /json HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n{")
    async with asyncio.timeout(30):
        assert b" 408 " in await reader.readline()
    writer.close()


class Kept:
    """A handler that answers nothing by itself."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, body: bytes, call: Call) -> None:
        if body.endswith(b"raise"):
            raise RuntimeError("made to fail")
        self.calls.append(call)


async def test_json_is_asked_a_bounded_number_of_times_at_once_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "MAX_IN_FLIGHT", 2)
    monkeypatch.setattr(http, "ANSWER_WITHIN_S", 0.2)
    kept = Kept()
    server = await serve_http(
        health=Health(), routes=[http.Route("/json", http.JsonEndpoint(kept).answer, methods=["POST"])]
    )

    async def post(body: bytes = b"{}") -> Any:
        return await fetch(server.address.port, "/json", method="POST", body=body)

    answers = await asyncio.gather(*(post() for _ in range(5)))
    statuses = [answer.status for answer in answers]
    assert sorted(statuses) == [500, 500, 503, 503, 503]
    assert {answer.header("retry-after") for answer in answers if answer.status == 503} == {"1"}
    assert all(call.cancelled for call in kept.calls)
    kept.calls[0].done(b"late")
    assert (await post(b'{"domain": "raise"}')).status == 500
    # All places are free again.
    again = asyncio.gather(post(), post())
    await until(lambda: len(kept.calls) == 4, what="two more calls")
    for call in kept.calls[2:]:
        call.done(b"\x08\x01")
    assert [answer.status for answer in await again] == [200, 200]
    kept.calls.clear()
    for code, status in ((b"\x08\x00", 500), (b"\x08\x02", 429), (b"\xff", 500)):
        asked = asyncio.ensure_future(post())
        await until(lambda: bool(kept.calls), what="the call")
        kept.calls.pop().done(code)
        assert (await asked).status == status
    await server.close()


async def test_healthcheck_is_ok_while_the_service_is_ready(start: Start, tmp_path: Path) -> None:
    given = await start()
    answer = await ask(given, "/healthcheck")
    assert (answer.status, answer.body) == (200, b"OK")


async def test_without_a_configuration_healthcheck_fails_and_json_says_why(start: Start) -> None:
    given = await start(config="domain: {")
    answer = await ask(given, "/healthcheck")
    assert (answer.status, answer.body) == (500, b"")
    answer = await ask(given, "/json", SEARCH)
    assert (answer.status, answer.text) == (500, "Internal Server Error: no configuration is loaded\n")


async def test_rlconfig_shows_what_is_in_force_as_envoyproxy_ratelimit_does(start: Start) -> None:
    given = await start()
    answer = await ask(given, "/rlconfig")
    assert answer.text.splitlines() == [
        "shop.path_/search: unit=HOUR requests_per_unit=2, shadow_mode: false, quota_mode: false",
        "shop.client: unit=SECOND requests_per_unit=5, shadow_mode: true, quota_mode: false"
        ", algorithm: token_bucket, burst: 9",
        "shop.internal: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false",
    ]


async def test_rlconfig_shows_all_of_it_in_json(start: Start, tmp_path: Path) -> None:
    given = await start()
    shown = (await ask(given, "/rlconfig?format=json")).json()
    limits = shown.pop("limits")
    assert shown == {"loads": 1, "rejected": None, "domains": ["shop"]}
    assert limits[0] == {
        "domain": "shop",
        "descriptor": "path_/search",
        "unit": "hour",
        "requests_per_unit": 2,
        "name": "searches",
    }
    assert limits[1]["shadow_mode"] is True
    assert limits[2] == {"domain": "shop", "descriptor": "internal", "unlimited": True}


async def test_rlconfig_of_many_limits_is_whole(start: Start) -> None:
    many = "".join(f"  - {{key: k{n}, rate_limit: {{unit: day, requests_per_unit: {n}}}}}\n" for n in range(2000))
    given = await start(config=f"domain: d\ndescriptors:\n{many}")
    limits = (await ask(given, "/rlconfig?format=json")).json()["limits"]
    assert [limit["requests_per_unit"] for limit in limits] == list(range(2000))
    assert len((await ask(given, "/rlconfig")).text.splitlines()) == 2000


async def test_before_any_configuration_rlconfig_is_empty(start: Start) -> None:
    given = await start(config="domain: {")
    assert (await ask(given, "/rlconfig")).body == b""
    shown = (await ask(given, "/rlconfig?format=json")).json()
    assert (shown["loads"], shown["limits"]) == (0, [])
    assert "limits.yaml" in shown["rejected"]


async def health_of(given: Worker, service: str) -> str:
    async with grpc.aio.insecure_channel(str(given.address)) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@pytest.mark.parametrize("engine", ["ngh2", "grpcio"])
async def test_grpc_health_follows_the_configuration_by_every_name(start: Start, tmp_path: Path, engine: str) -> None:
    given = await start(config="domain: {", engine=engine)
    names = ("", "ratelimit", "envoy.service.ratelimit.v3.RateLimitService")
    assert [await health_of(given, name) for name in names] == ["NOT_SERVING"] * 3
    (tmp_path / "limits.yaml").write_text(CONFIG)

    async def serving() -> bool:
        return [await health_of(given, name) for name in names] == ["SERVING"] * 3

    await until(serving, what="the health of a worker that has a configuration")


async def test_a_worker_that_drains_says_so_before_it_goes(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(CONFIG)
    settings = RateLimitSettings(listen="127.0.0.1:0", http="127.0.0.1:0", config=tmp_path / "limits.yaml", drain_s=5)
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(worker(settings))
        client = await RawClient.to(given.address)
        # A call that is under way keeps the worker from going.
        stream = client.ask(message(b"")[:3], end=False, path=METHOD)
        await client.flush()
        check = health_pb2.HealthCheckRequest(service="ratelimit").SerializeToString()
        leaving = asyncio.ensure_future(stack.aclose())
        await until(lambda: drained(given), what="the draining")
        answer = await client.answer(client.ask(message(check), path="/grpc.health.v1.Health/Check"))
        status = health_pb2.HealthCheckResponse.FromString(answer.body[5:]).status
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(status) == "NOT_SERVING"
        client.session.reset_stream(stream)
        await client.flush()
        client.close()
        await leaving


async def drained(given: Worker) -> bool:
    return (await ask(given, "/healthcheck")).status == 500
