"""Before an Envoy ends, its clients go: the drain process against a real Envoy."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.provision.binary import find_envoy
from tests.support.http import Connection
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.waiting import until


@dataclass
class Pod:
    """An Envoy and its drain process, as in a pod."""

    envoy: ChildProcess
    drain: ChildProcess
    served: int
    admin: int
    hook: int

    async def get(self, port: int, path: str = "/") -> Any:
        async with await Connection.to(port) as connection:
            return await connection.request(path)


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    envoy = find_envoy()
    if envoy is None:
        pytest.skip("no Envoy")
    served, admin, hook = free_ports(3)
    path = tmp_path / "envoy.yaml"
    path.write_text(yaml.safe_dump(_bootstrap(served, admin)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--drain-strategy", "immediate"]
    proxy = ChildProcess([str(envoy), "-c", str(path), *options], log=tmp_path / "envoy.log")
    command = [sys.executable, "-m", "controlplane.provision.kubernetes.drain", "--admin", f"127.0.0.1:{admin}"]
    times = ["--timeout", "3", "--at-least", "0.5"]
    drain = ChildProcess([*command, "--port", str(hook), *times], log=tmp_path / "drain.log")
    made = Pod(proxy, drain, served, admin, hook)
    try:
        await until(lambda: made.get(served), what="Envoy", within_s=20)
        await until(lambda: made.get(hook, "/"), what="the drain process", within_s=20)
        yield made
    finally:
        await drain.stop(within_s=10)
        await proxy.stop(within_s=10)


async def test_the_hook_is_answered_when_the_last_client_has_gone(pod: Pod) -> None:
    connection = await Connection.to(pod.served)
    hook = asyncio.create_task(pod.get(pod.hook, "/drained"))
    pod.drain.signal(signal.SIGTERM)
    began = time.monotonic()

    async def told_to_go() -> bool:
        # New connections are still accepted, and every answer says that the next request is to go elsewhere.
        async with await Connection.to(pod.served) as other:
            return (await other.request("/")).header("connection") == "close"

    await until(told_to_go, what="the drain")
    assert (await pod.get(pod.admin, "/ready")).status == 200

    async def not_ready() -> bool:
        return (await pod.get(pod.admin, "/ready")).status == 503

    await until(not_ready, what="Envoy to say that it ends")
    assert time.monotonic() - began >= 0.5
    assert not hook.done()
    response = await connection.request("/")
    assert (response.status, response.header("connection")) == (200, "close")
    connection.close()
    assert (await asyncio.wait_for(hook, 10)).status == 200
    await until(lambda: pod.drain.exit_code is not None, what="the drain process to end")
    assert "all clients have gone" in pod.drain.output()


async def test_clients_that_stay_are_cut_when_the_time_is_up(pod: Pod) -> None:
    connection = await Connection.to(pod.served)
    await connection.request("/")
    pod.drain.signal(signal.SIGTERM)
    assert (await pod.get(pod.hook, "/drained")).status == 200
    await until(lambda: "1 connections are cut" in pod.drain.output(), what="the drain to end")
    connection.close()


async def test_a_request_to_the_hook_starts_nothing(pod: Pod) -> None:
    began = time.monotonic()
    assert (await pod.get(pod.hook, "/drained")).status == 200
    assert time.monotonic() - began < 8
    assert (await pod.get(pod.hook, "/other")).status == 404
    assert (await pod.get(pod.served)).header("connection") != "close"
    assert (await pod.get(pod.admin, "/ready")).status == 200


async def test_without_an_envoy_the_drain_ends_at_once(pod: Pod) -> None:
    await pod.envoy.stop(within_s=10)
    pod.drain.signal(signal.SIGTERM)
    await until(lambda: pod.drain.exit_code is not None, what="the drain process to end")
    assert "Envoy does not answer" in pod.drain.output()


def test_the_drain_process_is_small(pod: Pod) -> None:
    status = Path(f"/proc/{pod.drain.pid}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss < 30 * 1024


def _bootstrap(served: int, admin: int) -> dict[str, Any]:
    extensions = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{extensions}.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "all",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    listener = {
        "address": _address(served),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"admin": {"address": _address(admin)}, "static_resources": {"listeners": [listener]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
