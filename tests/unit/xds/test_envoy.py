"""Real Envoys, handmade resources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.xds.cache import SnapshotCache
from controlplane.xds.identity import Principal
from controlplane.xds.order import Timing
from controlplane.xds.server import AdsServer
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.upstream import Upstream
from tests.unit.xds.made import bootstrap, cluster, endpoints, listener, route, snapshot

StartAds = Callable[..., Awaitable[AdsServer]]
StartEnvoy = Callable[..., Awaitable[Envoy]]
OWNER = "demo/edge"
QUICK = Timing(drain_s=0.1)

both_protocols = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


def world(port: int, clusters: dict[str, Upstream], prefixes: dict[str, str]) -> Any:
    """A listener, its routes, and the clusters they name."""
    return snapshot(
        listener("demo/edge/80", port, "demo/edge/80"),
        route("demo/edge/80", prefixes),
        *(cluster(name) for name in clusters),
        *(endpoints(name, [upstream.port]) for name, upstream in clusters.items()),
    )


@both_protocols
async def test_an_envoy_serves_what_is_published(
    start_ads: StartAds, start_envoy: StartEnvoy, upstream: Upstream, tmp_path: Path, delta: bool
) -> None:
    cache = SnapshotCache()
    address = f"unix:{tmp_path}/xds.sock"
    await start_ads(cache, listen={address: Principal("gateway", OWNER)})
    port = free_port()
    cache.publish({OWNER: world(port, {"a": upstream}, {"/": "a"})})
    cache.complete()
    await start_envoy(bootstrap(address, OWNER, delta=delta))
    assert (await fetch(port)).status == 200
    assert await cache.wait_settled(OWNER, timeout_s=5)
