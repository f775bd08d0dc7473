"""Streams that the server ends while their clients read nothing of what is being sent to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import cast

import pytest

from controlplane.replicas import METHOD
from controlplane.replicas.leading import Leading
from controlplane.replicas.messages import Hello, KeySets, Message, encode
from controlplane.replicas.presence import Member, Presence
from controlplane.replicas.telling import Telling
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.identity import Principal
from controlplane.xds.resources import ROUTE, Resource
from controlplane.xds.server import AdsServer, Limits
from dragoman.grpc_worker.api import StatusCode
from tests.support.waiting import until
from tests.unit.xds.h2_client import H2Client
from tests.unit.xds.made import snapshot
from tests.unit.xds.wire_clients import DeltaClient

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"
WINDOW = 1_000


async def served_to_who_does_not_read(
    start_ads: StartAds, stack: AsyncExitStack, limits: Limits | None = None
) -> tuple[SnapshotCache, AdsServer, H2Client]:
    """Returns a client that has taken a part of a response, and lets no more be sent."""
    cache = SnapshotCache()
    server = await start_ads(cache, limits=limits)
    cache.publish({OWNER: snapshot(Resource.of(ROUTE, "r", bytes(1 << 20)))})
    client = await stack.enter_async_context(H2Client(server.addresses[0], OWNER, window=WINDOW))
    client.answers = False
    client.send(type_url=ROUTE, resource_names_subscribe=["r"])
    await until(lambda: client.received_bytes >= WINDOW, what="the beginning of the response")
    return cache, server, client


async def test_a_stream_that_is_ended_while_it_is_not_read_is_told_so_once_it_is_read(
    start_ads: StartAds, stack: AsyncExitStack
) -> None:
    cache, _, client = await served_to_who_does_not_read(start_ads, stack)
    client.say(b"\xff\xff no request")
    await until(lambda: not cache.clients(), what="the client to be forgotten")
    client.read_on()
    await until(lambda: client.status, what="the end of the stream")
    assert int(client.status) == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("engine", ["grpcio"], indirect=True)
async def test_what_is_not_read_counts_among_the_clients(start_ads: StartAds, stack: AsyncExitStack) -> None:
    cache, server, client = await served_to_who_does_not_read(start_ads, stack, Limits(max_clients=1))
    client.say(b"\xff\xff no request")
    await until(lambda: not cache.clients(), what="the client to be forgotten")
    async with H2Client(server.addresses[0], OWNER) as other:
        other.send(type_url=ROUTE)
        await until(lambda: other.status, what="a refusal")
        assert int(other.status) == StatusCode.RESOURCE_EXHAUSTED
    client.read_on()
    await until(lambda: client.closed, what="the end of the stream")
    async with DeltaClient(server.addresses[0], OWNER) as another:
        assert (await another.fetch(ROUTE)).resources


@pytest.mark.parametrize("engine", ["ngh2"], indirect=True)
async def test_a_stream_that_its_client_has_ended_and_does_not_read_is_cut_off(
    start_ads: StartAds, stack: AsyncExitStack
) -> None:
    cache, _, client = await served_to_who_does_not_read(start_ads, stack, Limits(stall_s=0.1))
    client.half_close()
    await until(lambda: not cache.clients(), what="the client to be forgotten")
    await until(lambda: client.closed, what="the end of the stream")


async def test_a_server_stops_at_once_though_a_client_does_not_read(start_ads: StartAds, stack: AsyncExitStack) -> None:
    _, server, client = await served_to_who_does_not_read(start_ads, stack)
    await server.stop()
    await until(lambda: client.closed, what="the end of the connection", within_s=5)


class Telltale(Telling):
    """Has megabytes to tell."""

    def __init__(self) -> None: ...

    async def run(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        while True:
            await write(encode(cast("Message", KeySets(documents={"uri": "x" * (1 << 20)}))))


class NoPresence:
    """Takes every member."""

    def join(self, replica: str, address: str) -> Member:
        return Member(replica, address)

    def leave(self, member: Member) -> None: ...


async def test_a_follower_that_reads_nothing_is_told_who_does_not_lead_any_more_once_it_reads(
    start_ads: StartAds, stack: AsyncExitStack
) -> None:
    leading = Leading(
        cast("Presence", NoPresence()), identity="one", telling=lambda _: Telltale(), offered=lambda _: None
    )
    leading.lead(True)
    options = {"listen": {"127.0.0.1:0": Principal("replica")}, "methods": {METHOD: leading.attend}}
    server = await start_ads(SnapshotCache(), **options)
    follower = await stack.enter_async_context(H2Client(server.addresses[0], "", window=WINDOW, path=METHOD))
    follower.read, follower.answers = bytes, False
    follower.say(encode(Hello(replica="two")))
    await until(lambda: follower.received_bytes >= WINDOW, what="the beginning of what is told")
    leading.lead(False)
    follower.read_on()
    await until(lambda: follower.status, what="the end of the stream")
    assert int(follower.status) == StatusCode.UNAVAILABLE
