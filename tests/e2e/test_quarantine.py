"""What Envoy itself refuses is found: everything else is served, and the object at fault as it last was good."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from controlplane.quarantine.validator import Validator
from tests.support import manifests as m
from tests.support.envoy import envoy_binary
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.strict import SHORT, StrictGateway, long_expression
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream
from tests.support.waiting import soon

ROUTES = 300
NEW = [f"new-{number}" for number in range(10)]
REFUSED = "rejected by Envoy: regex"


def good(name: str, path: str = "") -> dict[str, Any]:
    return m.route(name, [m.to_backend(path or f"/{name}", "echo")])


def bad(name: str) -> dict[str, Any]:
    match = {"path": {"type": "RegularExpression", "value": long_expression(f"/{name}")}}
    return m.route(name, [{**m.to_backend("/", "echo"), "matches": [match]}])


async def rejections(edge: Gateway) -> int:
    assert edge.envoy is not None
    stats = await edge.envoy.stats("http.")
    found = [value for name, value in stats.items() if ".rds." in name and name.endswith(".update_rejected")]
    assert found, "Envoy counts no rejections"
    return sum(found)


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream("echo") as upstream:
        yield upstream


def gateway(upstream: Upstream, *, validator: Validator | None = None, **files: Any) -> StrictGateway:
    base = [GATEWAY_CLASS, m.gateway(), m.backend("echo", upstream.port)]
    routes = [good(f"route-{number}") for number in range(ROUTES)]
    named = {f"{name}.yaml": documents for name, documents in files.items()}
    return StrictGateway({"base.yaml": base, "routes.yaml": routes, **named}, keeps_state=True, validator=validator)


async def test_of_ten_new_routes_nine_are_served_within_a_second_and_one_is_named(upstream: Upstream) -> None:
    async with gateway(upstream) as edge:
        await edge.answers(f"/route-{ROUTES - 1}")

        async def served() -> float:
            edge.write("new.yaml", [])
            await edge.answers(f"/{NEW[0]}", 404)
            edge.write("new.yaml", [bad(name) if name == "new-4" else good(name) for name in NEW])
            start = time.monotonic()
            for name in NEW:
                if name != "new-4":
                    await edge.answers(f"/{name}")
            return time.monotonic() - start

        # Ten connections are part of it.
        await soon(served, within_s=1.5)
        finding = await edge.found("HTTPRoute demo/new-4", REFUSED)
        assert "nothing is in force in its place" in finding
        assert len(edge.findings()) == 1
        edge.write("new.yaml", [good(name) for name in NEW])
        await edge.answers("/new-4")
        assert edge.findings() == []


async def test_the_last_good_version_of_what_turned_bad_is_served_all_the_while(upstream: Upstream) -> None:
    async with gateway(upstream, edited=[good("edited", "/edited")]) as edge:
        await edge.answers("/edited")
        targets = [Target("/edited"), Target("/route-1")]
        async with Probe(edge.port(80), targets, rate_per_s=100) as probe:
            edge.write("edited.yaml", [bad("edited"), good("beside")])
            await edge.answers("/beside", within_s=2.0)
            await edge.found("HTTPRoute demo/edited", REFUSED, "the last good version stays in force")
            await edge.stop_plane()
            await edge.start_plane()
            await edge.found("HTTPRoute demo/edited", REFUSED, "the last good version stays in force")
            edge.write("more.yaml", [good("more")])
            await edge.answers("/more")
            await edge.answers("/edited")
        probe.assert_none_failed(at_least_per_s=1)
        edge.write("edited.yaml", [good("edited", "/mended")])
        await edge.answers("/mended")
        assert edge.findings() == []


async def test_a_restart_does_not_show_envoy_again_what_it_rejects(upstream: Upstream) -> None:
    async with gateway(upstream) as edge:
        edge.write("new.yaml", [bad("new")])
        await edge.found("HTTPRoute demo/new", REFUSED)
        await edge.stop_plane()
        await edge.start_plane()
        await edge.restart_envoy()
        await edge.answers("/route-1")
        assert await rejections(edge) == 0
        await edge.found("HTTPRoute demo/new", REFUSED)


async def test_an_envoy_that_starts_with_something_bad_among_the_rest_serves_the_rest(upstream: Upstream) -> None:
    async with gateway(upstream, new=[bad("one"), bad("two"), good("three")]) as edge:
        await edge.answers("/three")
        await edge.answers("/route-299")
        await edge.found("HTTPRoute demo/one", REFUSED)
        await edge.found("HTTPRoute demo/two", REFUSED)
        edge.remove("new.yaml")
        await edge.answers("/three", 404)
        assert edge.findings() == []


async def test_what_is_tried_first_disturbs_no_envoy(upstream: Upstream) -> None:
    strict = Validator(Path(envoy_binary()), runtime={"re2.max_program_size.error_level": SHORT})
    async with gateway(upstream, validator=strict, first=[bad("never"), good("first")]) as edge:
        await edge.answers("/first")
        await edge.found("HTTPRoute demo/never", REFUSED)
        edge.write("new.yaml", [bad(name) if name in ("new-4", "new-7") else good(name) for name in NEW])
        for name in NEW:
            if name not in ("new-4", "new-7"):
                await edge.answers(f"/{name}", within_s=20.0)
        await edge.found("HTTPRoute demo/new-4", REFUSED)
        await edge.found("HTTPRoute demo/new-7", REFUSED)
        assert await rejections(edge) == 0
