"""Real Envoys, handmade resources: nothing fails while clusters and routes come, change and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Ack, Nack
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.order import Timing
from controlplane.xds.resources import Resource, Snapshot
from controlplane.xds.server import AdsServer, serve_ads
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream
from tests.support.waiting import until
from tests.unit.xds.made import bootstrap, cluster, endpoints, listener, route, snapshot

StartAds = Callable[..., Awaitable[AdsServer]]
StartEnvoy = Callable[..., Awaitable[Envoy]]
StartUpstream = Callable[..., Awaitable[Upstream]]
OWNER = "demo/edge"
NAME = "demo/edge/80"
QUICK = Timing(drain_s=0.1)

both_protocols = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


def world(port: int, clusters: dict[str, Upstream], prefixes: dict[str, str], *more: Resource) -> Snapshot:
    """A listener, its routes, the clusters they name, and whatever else."""
    return snapshot(
        listener(NAME, port, NAME),
        route(NAME, prefixes),
        *(cluster(name) for name in clusters),
        *(endpoints(name, [upstream.port]) for name, upstream in clusters.items()),
        *more,
    )


async def held_clusters(envoy: Envoy) -> dict[str, Any]:
    """The clusters that Envoy has in use, by name; what warms is not among them."""
    for section in (await envoy.config_dump())["configs"]:
        if section["@type"].endswith("ClustersConfigDump"):
            return {entry["cluster"]["name"]: entry["cluster"] for entry in section.get("dynamic_active_clusters", [])}
    return {}


@both_protocols
async def test_an_envoy_serves_what_is_published(
    start_ads: StartAds, start_envoy: StartEnvoy, upstream: Upstream, tmp_path: Path, delta: bool
) -> None:
    cache = SnapshotCache()
    address = f"unix:{tmp_path}/xds.sock"
    await start_ads(cache, listen={address: Principal("gateway", OWNER)})
    port = free_port()
    cache.publish({OWNER: world(port, {"a": upstream}, {"/": "a"})})
    await start_envoy(bootstrap(address, OWNER, delta=delta))
    assert (await fetch(port)).status == 200
    assert await cache.wait_settled(OWNER, timeout_s=5)


@both_protocols
async def test_no_request_fails_while_a_route_moves_from_cluster_to_cluster(
    start_ads: StartAds, start_envoy: StartEnvoy, start_upstream: StartUpstream, delta: bool
) -> None:
    cache = SnapshotCache(timing=QUICK)
    (address,) = (await start_ads(cache)).addresses
    port = free_port()
    first, second = await start_upstream("first"), await start_upstream("second")
    cache.publish({OWNER: world(port, {"c0": first}, {"/": "c0"})})
    envoy = await start_envoy(bootstrap(address, OWNER, delta=delta))
    async with Probe(port, [Target("/")], rate_per_s=220) as probe:
        for step in range(1, 21):
            now, name = (first, second)[step % 2], f"c{step}"
            # In one publish: a cluster is new, the route moves to it, and the cluster that it named is gone.
            cache.publish({OWNER: world(port, {name: now}, {"/": name})})
            await probe.sees(lambda seen, now=now: seen.response is not None and now.name in seen.response.text)
        await until(lambda: cache.settled(OWNER), what="the last acknowledgement")

        async def alone() -> bool:
            return (await held_clusters(envoy)).keys() == {"c20"}

        await until(alone, what="the clusters that nothing names to be gone")
        await probe.sees(lambda seen: seen.ok)
    probe.assert_none_failed(at_least_per_s=50)


@both_protocols
async def test_a_changed_cluster_is_in_use_at_once_though_its_endpoints_are_the_same(
    start_ads: StartAds, start_envoy: StartEnvoy, upstream: Upstream, delta: bool
) -> None:
    cache = SnapshotCache(timing=QUICK)
    (address,) = (await start_ads(cache)).addresses
    port = free_port()
    unchanged = (listener(NAME, port, NAME), route(NAME, {"/": "a"}), endpoints("a", [upstream.port]))
    cache.publish({OWNER: snapshot(*unchanged, cluster("a"))})
    envoy = await start_envoy(bootstrap(address, OWNER, delta=delta))
    async with Probe(port, [Target("/")], rate_per_s=220) as probe:
        for timeout in ("2s", "3s"):
            cache.publish({OWNER: snapshot(*unchanged, cluster("a", connect_timeout=timeout))})

            async def in_use(timeout: str = timeout) -> bool:
                return (await held_clusters(envoy)).get("a", {}).get("connect_timeout") == timeout

            # Without its endpoints it would warm for the 60 s that the test's clusters wait for them.
            await until(in_use, what="the changed cluster to be warm", within_s=5)
        await probe.sees(lambda seen: seen.ok)
    probe.assert_none_failed(at_least_per_s=50)


async def test_endpoints_change_by_themselves(
    start_ads: StartAds, start_envoy: StartEnvoy, start_upstream: StartUpstream
) -> None:
    acks: list[Ack] = []
    cache = SnapshotCache(observers=Observers(on_ack=acks.append))
    (address,) = (await start_ads(cache)).addresses
    port = free_port()
    first, second = await start_upstream("first"), await start_upstream("second")
    cache.publish({OWNER: world(port, {"a": first}, {"/": "a"})})
    await start_envoy(bootstrap(address, OWNER))
    assert await cache.wait_settled(OWNER, timeout_s=5)
    acks.clear()
    async with Probe(port, [Target("/")], rate_per_s=220) as probe:
        cache.publish({OWNER: world(port, {"a": second}, {"/": "a"})})
        await probe.sees(lambda seen: seen.response is not None and "second" in seen.response.text)
    probe.assert_none_failed(at_least_per_s=50)
    assert [(ack.type_url.rpartition(".")[2], ack.names) for ack in acks] == [("ClusterLoadAssignment", ("a",))]


@both_protocols
async def test_an_envoy_that_comes_back_to_a_restarted_server_is_sent_nothing_that_it_has(
    start_envoy: StartEnvoy, upstream: Upstream, tmp_path: Path, delta: bool
) -> None:
    address = f"unix:{tmp_path}/xds.sock"
    listen = {address: Principal("gateway", OWNER)}
    port = free_port()
    state = world(port, {"a": upstream, "b": upstream}, {"/": "a", "/b": "b"})
    before = SnapshotCache()
    before.publish({OWNER: state})
    server = await serve_ads(before, listen=listen)
    envoy = await start_envoy(bootstrap(address, OWNER, delta=delta))
    assert await before.wait_settled(OWNER, timeout_s=5)
    async with Probe(port, [Target("/"), Target("/b")], rate_per_s=220) as probe:
        await server.stop()
        registry = CollectorRegistry()
        acks: list[Ack] = []
        after = SnapshotCache(metrics=XdsMetrics(registry), observers=Observers(on_ack=acks.append))
        after.publish({OWNER: state})
        server = await serve_ads(after, listen=listen)
        await until(lambda: after.clients() and len(after.clients()[0].types) == 4, what="Envoy's subscriptions")
        assert await after.wait_settled(OWNER, timeout_s=5)
        assert [ack for ack in acks if ack.names] == []
        # It is still served: a change arrives.
        after.publish({OWNER: world(port, {"a": upstream, "b": upstream}, {"/": "b", "/b": "a"})})
        await until(lambda: acks and acks[-1].names == (NAME,), what="the change", detail=envoy.report)
    await server.stop()
    probe.assert_none_failed(at_least_per_s=50)


async def test_what_changed_while_the_server_was_away_breaks_nothing(
    start_envoy: StartEnvoy, start_upstream: StartUpstream, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/xds.sock"
    listen = {address: Principal("gateway", OWNER)}
    port = free_port()
    first, second = await start_upstream("first"), await start_upstream("second")
    before = SnapshotCache(timing=QUICK)
    before.publish({OWNER: world(port, {"old": first}, {"/": "old"})})
    server = await serve_ads(before, listen=listen)
    envoy = await start_envoy(bootstrap(address, OWNER))
    async with Probe(port, [Target("/")], rate_per_s=220) as probe:
        await server.stop()
        after = SnapshotCache(timing=QUICK)
        after.publish({OWNER: world(port, {"new": second}, {"/": "new"})})
        server = await serve_ads(after, listen=listen)
        await probe.sees(lambda seen: seen.response is not None and "second" in seen.response.text)

        async def gone() -> bool:
            return (await held_clusters(envoy)).keys() == {"new"}

        await until(gone, what="what vanished meanwhile to be removed")
        await probe.sees(lambda seen: seen.ok)
    await server.stop()
    probe.assert_none_failed(at_least_per_s=50)


@both_protocols
async def test_a_rejected_resource_is_traced_to_its_object_and_leaves_the_others_alone(
    start_ads: StartAds, start_envoy: StartEnvoy, upstream: Upstream, delta: bool
) -> None:
    nacks: list[Nack] = []
    cache = SnapshotCache(observers=Observers(on_nack=nacks.append), timing=QUICK)
    (address,) = (await start_ads(cache)).addresses
    port = free_port()
    cache.publish({OWNER: world(port, {"a": upstream}, {"/": "a"})})
    await start_envoy(bootstrap(address, OWNER, delta=delta))
    bad = cluster("bad", connect_timeout="-1s", origins=("Backend demo/bad",))
    async with Probe(port, [Target("/")], rate_per_s=220) as probe:
        cache.publish({OWNER: world(port, {"a": upstream, "b": upstream}, {"/": "a", "/b": "b"}, bad)})
        await until(lambda: nacks, what="the rejection")
        assert [nack.names for nack in nacks] == [("bad",)]
        assert nacks[0].origins == ("Backend demo/bad",)
        # The route beside it follows once the hold after a rejection is over.
        await until(lambda: served(port, "/b", upstream), what="the good cluster's route")
    probe.assert_none_failed(at_least_per_s=50)
    assert len(nacks) == 1, "the rejected version was sent again"


async def served(port: int, path: str, upstream: Upstream) -> bool:
    """Whether the upstream has just been asked for the path."""
    await fetch(port, path)
    return any(request.path == path for request in upstream.requests[-20:])


@both_protocols
async def test_a_listener_that_is_gone_no_longer_accepts(
    start_ads: StartAds, start_envoy: StartEnvoy, upstream: Upstream, delta: bool
) -> None:
    cache = SnapshotCache(timing=QUICK)
    (address,) = (await start_ads(cache)).addresses
    port, other = free_port(), free_port()
    extra = (listener("demo/edge/81", other, "demo/edge/81"), route("demo/edge/81", {"/": "a"}))
    cache.publish({OWNER: world(port, {"a": upstream}, {"/": "a"}, *extra)})
    await start_envoy(bootstrap(address, OWNER, delta=delta))
    assert (await fetch(other)).status == 200
    cache.publish({OWNER: world(port, {"a": upstream}, {"/": "a"})})

    async def refused() -> bool:
        try:
            await fetch(other)
        except ConnectionError:
            return True
        return False

    await until(refused, what="the listener's end")
    assert (await fetch(port)).status == 200
