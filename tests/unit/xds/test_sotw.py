"""State-of-the-world ADS on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.order import Timing
from controlplane.xds.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.server import AdsServer
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.wire_clients import SotwClient

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"


def bodies(response: Any) -> list[bytes]:
    return [resource.value for resource in response.resources]


@pytest.fixture
def nacks() -> list[Nack]:
    return []


@pytest.fixture
def cache(nacks: list[Nack]) -> SnapshotCache:
    return SnapshotCache(timing=Timing(drain_s=0.0), observers=Observers(on_nack=nacks.append))


@pytest.fixture
async def client(cache: SnapshotCache, start_ads: StartAds, stack: Any) -> SotwClient:
    (address,) = (await start_ads(cache)).addresses
    return await stack.enter_async_context(SotwClient(address, OWNER))


async def test_every_response_holds_all(cache: SnapshotCache, client: SotwClient) -> None:
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"), plain(CLUSTER, "b"))})
    await client.request(CLUSTER)
    first = await client.receive()
    assert bodies(first) == [b"a=", b"b="]
    assert {resource.type_url for resource in first.resources} == {CLUSTER}
    await client.ack(first)
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"), plain(CLUSTER, "b", "2"))})
    second = await client.receive()
    assert bodies(second) == [b"a=", b"b=2"]
    assert second.version_info != first.version_info


async def test_a_cluster_is_left_out_only_after_the_routes_are_taken(cache: SnapshotCache, client: SotwClient) -> None:
    cache.publish({OWNER: snapshot(plain(CLUSTER, "old"), plain(ROUTE, "r", "old"))})
    await client.request(CLUSTER)
    await client.ack(await client.receive())
    await client.request(ROUTE, ["r"])
    await client.ack(await client.receive(), ["r"])
    cache.publish({OWNER: snapshot(plain(CLUSTER, "new"), plain(ROUTE, "r", "new"))})
    both = await client.receive()
    assert sorted(bodies(both)) == [b"new=", b"old="]
    await client.ack(both)
    routes = await client.receive()
    assert bodies(routes) == [b"r=new"]
    await client.ack(routes, ["r"])
    assert bodies(await client.receive()) == [b"new="]


async def test_a_client_that_comes_back_with_the_current_version_is_sent_nothing(
    cache: SnapshotCache, start_ads: StartAds
) -> None:
    (address,) = (await start_ads(cache)).addresses
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"), plain(ENDPOINT, "a"))})
    async with SotwClient(address, OWNER) as before:
        await before.request(CLUSTER)
        version = (await before.receive()).version_info
    async with SotwClient(address, OWNER) as after:
        await after.request(CLUSTER, version=version)
        with pytest.raises(TimeoutError):
            await after.receive(within_s=0.1)


async def test_a_name_that_is_added_is_answered_though_it_does_not_exist(
    cache: SnapshotCache, client: SotwClient
) -> None:
    cache.publish({OWNER: snapshot(plain(ENDPOINT, "a"))})
    await client.request(ENDPOINT, ["a"])
    first = await client.receive()
    await client.ack(first, ["a"])
    await client.request(ENDPOINT, ["a", "b"], version=first.version_info, nonce=first.nonce)
    second = await client.receive()
    assert bodies(second) == [b"a="]
    await client.ack(second, ["a", "b"])
    cache.publish({OWNER: snapshot(plain(ENDPOINT, "a"), plain(ENDPOINT, "b"))})
    assert bodies(await client.receive()) == [b"a=", b"b="]


async def test_a_request_with_an_old_nonce_is_ignored(cache: SnapshotCache, client: SotwClient) -> None:
    cache.publish({OWNER: snapshot(plain(ENDPOINT, "a", "1"), plain(ENDPOINT, "b"))})
    await client.request(ENDPOINT, ["a"])
    first = await client.receive()
    await client.ack(first, ["a"])
    cache.publish({OWNER: snapshot(plain(ENDPOINT, "a", "2"), plain(ENDPOINT, "b"))})
    second = await client.receive()
    await client.request(ENDPOINT, ["a", "b"], version=first.version_info, nonce=first.nonce)
    with pytest.raises(TimeoutError):
        await client.receive(within_s=0.1)
    assert bodies(second) == [b"a=2"]


async def test_a_rejected_resource_is_singled_out_and_the_others_are_taken(
    cache: SnapshotCache, client: SotwClient, nacks: list[Nack]
) -> None:
    cache.publish({OWNER: snapshot(plain(LISTENER, "a", "1"), plain(LISTENER, "b", "1"))})
    await client.request(LISTENER)
    response = await client.receive()
    version = response.version_info
    await client.ack(response)
    cache.publish({OWNER: snapshot(*(plain(LISTENER, name, "bad" if name == "b" else "2") for name in "abc"))})
    while True:
        response = await client.receive()
        if b"b=bad" in bodies(response):
            await client.request(LISTENER, version=version, nonce=response.nonce, error="what is this")
            continue
        version = response.version_info
        await client.ack(response)
        if sorted(bodies(response)) == [b"a=2", b"b=1", b"c=2"]:
            break
    assert [nack.names for nack in nacks] == [("b",)]
    with pytest.raises(TimeoutError):
        await client.receive(within_s=0.1)
