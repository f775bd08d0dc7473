"""What a change went through, from the file to Envoy's acknowledgement, is told as it was."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from dragoman.metrics import exposition, new_registry
from tests.support import manifests as m
from tests.support.dragoman import Serve, dragoman_command
from tests.support.gateway import GATEWAY_CLASS, Gateway, write_documents
from tests.support.http import fetch
from tests.support.upstream import Upstream
from tests.support.waiting import until


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Upstream("echo") as upstream:
        files = {
            "base.yaml": [GATEWAY_CLASS, m.gateway(), m.backend("echo", upstream.port)],
            "route.yaml": [m.route("shop", [m.to_backend("/one", "echo")])],
        }
        async with Gateway(files) as running:
            await running.answers("/one")
            yield running


async def _told(gateway: Gateway, words: str, state: str) -> dict[str, Any]:
    """Waits until the newest change of an object is so far, and returns it."""

    def found() -> dict[str, Any] | None:
        assert gateway.plane is not None
        changes = gateway.plane.tracer.changes(words=words, last=1)
        return changes[0] if changes and changes[0]["state"] == state else None

    change = await until(found, what=f"the change of {words} to be {state}")
    assert change is not None
    return change


async def test_a_changed_route_is_followed_from_its_file_to_the_acknowledgement(gateway: Gateway) -> None:
    assert gateway.plane is not None
    start = time.monotonic()
    gateway.write("route.yaml", [m.route("shop", [m.to_backend("/two", "echo")])])
    await gateway.answers("/two")
    change = await _told(gateway, "HTTPRoute demo/shop", "settled")
    took_ms = (time.monotonic() - start) * 1000
    assert change["objects"] == ["HTTPRoute demo/shop"]
    stages = change["stages_ms"]
    (owner,) = change["owners"]
    assert (owner["owner"], owner["clients"], owner["behind"]) == ("demo/edge", 1, 0)
    (sent,) = owner["types"]
    assert (sent["type"], sent["resources"], sent["removed"]) == ("RouteConfiguration", 1, 0)
    assert sent["bytes"] > 100
    (pushed_ms, _), acked_ms = sent["pushed_ms"], sent["acked_ms"]
    published_ms = sum(stages.values())
    assert 0 <= stages["wait"] < published_ms
    assert stages["wait"] + stages["load"] + stages["compile"] <= pushed_ms + 0.01
    assert pushed_ms < acked_ms <= change["settled_ms"] <= took_ms


async def test_convergence_is_measured_and_what_a_registry_tells_says_so(gateway: Gateway) -> None:
    assert gateway.plane is not None
    registry = new_registry()
    registry.register(gateway.plane.engine_metrics)
    for path in ("/a", "/b", "/c"):
        gateway.write("route.yaml", [m.route("shop", [m.to_backend(path, "echo")])])
        await gateway.answers(path)
        await _told(gateway, "HTTPRoute demo/shop", "settled")
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in exposition(registry).decode().splitlines()
        if not line.startswith("#")
    }
    assert values['dragoman_convergence_seconds_count{clients="envoy"}'] >= 3
    assert 0 < values['dragoman_convergence_seconds_sum{clients="envoy"}'] < 10
    assert values['dragoman_stage_seconds_count{stage="compile"}'] >= 4
    assert values["dragoman_clients_behind"] == values["dragoman_deliveries_open"] == 0
    assert values['dragoman_objects{kind="HTTPRoute"}'] == 1
    assert values['dragoman_resource_bytes{gateway="demo/edge",type="RouteConfiguration"}'] > 100


async def test_what_envoy_rejects_is_told_with_its_words(gateway: Gateway) -> None:
    listeners = [{"name": name, "protocol": "HTTP", "port": port} for name, port in (("http", 80), ("more", 81))]
    async with Upstream("occupies the port") as other:
        gateway.ports["demo/edge", 81] = other.port
        document = m.gateway(listeners=listeners)
        gateway.write("base.yaml", [GATEWAY_CLASS, document, m.backend("echo", other.port)])
        change = await _told(gateway, "Gateway demo/edge", "rejected")
    (rejection,) = [each for owner in change["owners"] for each in owner["rejections"]]
    assert (rejection["type"], rejection["names"]) == ("Listener", ["demo/edge/81"])
    assert "Address already in use" in rejection["message"]
    # That is for where Envoy runs: the Gateway is not taken back to what it was.
    assert gateway.plane is not None
    assert not gateway.plane.quarantine.entries


async def test_a_change_that_a_stopped_envoy_has_not_answered_says_who_is_behind(gateway: Gateway) -> None:
    assert gateway.envoy is not None
    gateway.envoy.process.signal(signal.SIGSTOP)
    try:
        gateway.write("route.yaml", [m.route("shop", [m.to_backend("/late", "echo")])])
        change = await _told(gateway, "HTTPRoute demo/shop", "under way")
        (owner,) = change["owners"]
        (waiting,) = owner["waiting"]
        assert (owner["behind"], waiting["client"]) == (1, "demo/edge")
    finally:
        gateway.envoy.process.signal(signal.SIGCONT)
    await _told(gateway, "HTTPRoute demo/shop", "settled")


def _run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([dragoman_command(), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


async def test_the_command_tells_the_last_changes_of_a_running_control_plane(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    route = m.route("shop", [m.to_backend("/one", "echo")])
    write_documents(folder / "all.yaml", [GATEWAY_CLASS, m.gateway(), m.backend("echo", 1), route])
    async with Serve(folder, home=tmp_path) as serve, serve.envoy("demo/edge"):
        server = f"http://127.0.0.1:{serve.http_port}"
        write_documents(folder / "more.yaml", [m.route("more", [m.to_backend("/more", "echo")])])

        async def settled() -> bool:
            answer = json.loads((await fetch(serve.http_port, "/changes?object=demo/more")).text)
            return bool(answer["changes"]) and answer["changes"][-1]["state"] == "settled"

        await until(settled, what="the change to have settled")
        code, said = await asyncio.to_thread(_run, "trace", "HTTPRoute demo/more", "--server", server)
        assert code == 0
        for words in ("settled after", "seen", "taken", "compiled", "published", "pushed", "RouteConfiguration: 1 ("):
            assert words in said
        code, said = await asyncio.to_thread(_run, "trace", "demo/more", "--json", "--server", server)
        assert json.loads(said)["objects"] == ["HTTPRoute demo/more"]
        code, said = await asyncio.to_thread(_run, "trace", "nowhere", "--server", server)
        assert (code, said) == (1, "dragoman: no change of nowhere is remembered\n")
        assert (await fetch(serve.http_port, "/changes?last=x")).status == 400
