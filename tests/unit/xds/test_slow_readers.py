"""Who reads slowly, or not at all, costs nobody anything: real sockets, of which one end is left unread."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from benchmarks.cpu import memory_bytes
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.resources import CLUSTER, ROUTE, Resource
from controlplane.xds.server import AdsServer, Limits
from tests.support.waiting import until
from tests.unit.xds.h2_client import H2Client
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.wire_clients import DeltaClient

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"
MIB = 1024 * 1024
CHANGES = 200


def routes(number: int) -> Resource:
    return Resource.of(ROUTE, "r", number.to_bytes(4, "big") + bytes(MIB))


def number_of(client: H2Client) -> int:
    """Which change was the last that a client has been sent."""
    sent = [response for response in client.responses if response.resources]
    return int.from_bytes(sent[-1].resources[0].resource.value[:4], "big") if sent else -1


async def test_clients_that_stop_reading_make_nothing_grow_and_slow_nobody_down(
    start_ads: StartAds, stack: AsyncExitStack
) -> None:
    cache = SnapshotCache()
    (address,) = (await start_ads(cache)).addresses
    cache.publish({OWNER: snapshot(routes(0))})
    slow = [await stack.enter_async_context(H2Client(address, OWNER, node_id=f"slow-{n}")) for n in range(10)]
    reader = await stack.enter_async_context(H2Client(address, OWNER, node_id="reader"))
    for client in (*slow, reader):
        client.send(type_url=ROUTE, resource_names_subscribe=["r"])
    await until(lambda: all(number_of(client) == 0 for client in (*slow, reader)), what="the first routes")
    for client in slow:
        client.transport.pause_reading()
    reader.responses.clear()
    before, slowest_s = 0, 0.0
    for number in range(1, CHANGES + 1):
        began_at = time.perf_counter()
        cache.publish({OWNER: snapshot(routes(number))})
        await until(lambda: number_of(reader) == number, what="a change", detail=lambda: str(number))  # noqa: B023
        slowest_s = max(slowest_s, time.perf_counter() - began_at)
        reader.responses.clear()
        if number == 10:
            # By now whatever holds one message for each has grown to that.
            before = memory_bytes(os.getpid())
    assert (memory_bytes(os.getpid()) - before) / MIB < 48
    assert slowest_s < 2.0
    for client in slow:
        client.responses.clear()
        client.transport.resume_reading()
    await until(
        lambda: all(number_of(client) == CHANGES for client in slow), what="the newest at those that read again"
    )
    # One was under way, and another may have fit into the buffers of the system.
    assert max(len(client.responses) for client in slow) <= 8


@pytest.mark.parametrize("engine", ["ngh2"], indirect=True)
async def test_a_client_that_lets_nothing_be_sent_is_cut_off(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    (address,) = (await start_ads(cache, limits=Limits(stall_s=0.2))).addresses
    cache.publish({OWNER: snapshot(routes(0))})
    # It reads its socket, but never says that more may come.
    async with H2Client(address, OWNER, window=1_000) as client:
        client.send(type_url=ROUTE, resource_names_subscribe=["r"])
        await until(lambda: client.closed, what="the end of the stream")
        assert client.received_bytes < 10_000
    await until(lambda: not cache.clients(), what="it to be forgotten")


async def test_a_client_that_is_slow_is_not_cut_off_while_it_reads(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    (address,) = (await start_ads(cache, limits=Limits(stall_s=60.0))).addresses
    cache.publish({OWNER: snapshot(routes(7))})
    async with H2Client(address, OWNER, window=1 << 21) as client:
        client.send(type_url=ROUTE, resource_names_subscribe=["r"])
        for _ in range(10):
            client.transport.pause_reading()
            await asyncio.sleep(0)
            client.transport.resume_reading()
        await until(lambda: number_of(client) == 7, what="the routes")


async def test_a_client_that_never_answers_is_sent_nothing_more_of_a_type_and_then_the_newest(
    start_ads: StartAds,
) -> None:
    cache = SnapshotCache()
    (address,) = (await start_ads(cache)).addresses
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a", "0"))})
    async with H2Client(address, OWNER) as silent, DeltaClient(address, OWNER, node_id="other") as other:
        silent.answers = False
        silent.send(type_url=CLUSTER)
        await other.fetch(CLUSTER)
        await until(lambda: bool(silent.responses), what="the first response")
        for number in range(1, 50):
            cache.publish({OWNER: snapshot(plain(CLUSTER, "a", str(number)))})
            await other.take()
        assert len(silent.responses) == 1
        silent.send(type_url=CLUSTER, response_nonce=silent.responses[0].nonce)
        await until(lambda: len(silent.responses) == 2, what="the newest")
        assert silent.responses[1].resources[0].resource.value == b"a=49"


async def test_a_client_that_comes_and_goes_all_the_time_leaves_nothing_behind(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    server = await start_ads(cache, limits=Limits(max_clients=20))
    cache.publish({OWNER: snapshot(*(plain(CLUSTER, f"c{number}") for number in range(100)))})
    for _ in range(200):
        async with H2Client(server.addresses[0], OWNER) as client:
            client.send(type_url=CLUSTER)
            await until(lambda: bool(client.responses or client.closed), what="an answer")
    await until(lambda: not cache.clients(), what="all to be forgotten")
    assert cache.settled()
    async with DeltaClient(server.addresses[0], OWNER) as client:
        assert len((await client.fetch(CLUSTER)).resources) == 100
