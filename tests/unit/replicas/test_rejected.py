"""What the Envoys of one replica reject is in force at none, however far each is in reading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.xds.resources import ROUTE
from tests.support.certificates import Authority
from tests.support.manifests import Manifest, route, rule
from tests.support.waiting import until
from tests.unit.replicas.world import OWNER, Replica, World

KEY = ObjectKey(GATEWAY_GROUP, "HTTPRoute", "demo", "open")
NAME = f"{OWNER}/80"


@pytest_asyncio.fixture
async def world(authority: Authority) -> AsyncIterator[World]:
    made = World(authority)
    yield made
    made.folder.cleanup()


def edited(path: str) -> Manifest:
    return route("open", [rule(path, "web")])


def serves(replica: Replica, path: str) -> bool:
    published = replica.plane.cache.published(OWNER)
    return published is not None and path.encode() in published.of_type(ROUTE)[NAME].body


async def test_a_replica_takes_over_what_the_envoys_of_another_reject(world: World) -> None:
    async with AsyncExitStack() as stack:
        leader, follower, late = [await world.replica(stack, name) for name in ("a", "b", "c")]
        world.leads(leader)
        for each in (follower, late):
            await until(each.following, what="a replica to follow")
        here = await stack.enter_async_context(leader.envoy("here"))
        there = await stack.enter_async_context(follower.envoy("there"))
        for replica, envoy in ((leader, here), (follower, there)):
            await envoy.settle()
            await until(lambda each=replica: each.plane.quarantine.is_confirmed(KEY), what="the route to be confirmed")
        for each in (leader, follower):
            each.source.put(edited("/bad"))
            await until(lambda each=each: serves(each, "/bad"), what="the change to be read")
        await there.nack(await there.receive(), "it is '/bad'")
        await there.ack(await there.receive())
        for each in (follower, leader):
            await until(lambda each=each: serves(each, "/open"), what="what was good to be in force again")
            await until(lambda each=each: KEY in each.plane.quarantine.entries, what="the route to be in quarantine")
        late.source.put(edited("/bad"))
        await until(lambda: KEY in late.plane.quarantine.entries, what="who reads it later to know")
        assert serves(late, "/open")
        for each in (leader, follower, late):
            each.source.put(edited("/mended"))
            await until(lambda each=each: serves(each, "/mended"), what="what is mended to be in force")
            assert KEY not in each.plane.quarantine.entries
