"""Two replicas that serve, one of which leads: it knows the other's clients, and what it decides holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc.aio
import pytest

from controlplane.api.load import key_of
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.status.programmed import programmed
from controlplane.xds.census import census_of
from controlplane.xds.identity import RATE_LIMIT_OWNER
from controlplane.xds.resources import CLUSTER, LISTENER, RATE_LIMIT_CONFIG, ROUTE
from tests.support.certificates import Authority
from tests.support.manifests import Manifest, endpoint_slice, manifest, route, rule, service
from tests.support.waiting import until
from tests.unit.replicas.world import OWNER, SERVED, Envoy, Replica, World

GATEWAY = ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "edge")


@pytest.fixture
def world(authority: Authority) -> World:
    return World(authority)


def said(replica: Replica) -> tuple[str, str]:
    """What a replica would write of whether the Gateway is programmed: status and message."""
    status = replica.plane.engine.pipeline.statuses.current()[GATEWAY]
    one_by_one, all_together = replica.replicas.clients(OWNER), replica.replicas.census(OWNER)
    assert replace(census_of(one_by_one), unsettled_s=0.0) == replace(all_together, unsettled_s=0.0)
    told, _ = programmed(GATEWAY, status, owner=OWNER, clients=all_together, nacks=replica.replicas.nacks(OWNER))
    found = next(each for each in told.conditions if each.type == "Programmed")
    return found.status, found.message


async def two(world: World, stack: AsyncExitStack) -> tuple[Replica, Replica]:
    leader, follower = await world.replica(stack, "one"), await world.replica(stack, "two")
    world.leads(leader)
    return leader, follower


async def test_an_envoy_at_the_follower_counts_where_statuses_are_written(world: World, stack: AsyncExitStack) -> None:
    leader, follower = await two(world, stack)
    assert said(leader)[0] == "Unknown"
    async with follower.envoy("there") as there, leader.envoy("here") as here:
        await there.settle()
        await here.settle()
        await leader.knows("here", "there")
        assert said(leader)[0] == "True"
        assert OWNER in leader.moved


async def test_what_the_follower_has_not_published_yet_does_not_count_as_acknowledged(
    world: World, stack: AsyncExitStack
) -> None:
    leader, follower = await two(world, stack)
    async with follower.envoy() as envoy:
        await envoy.settle()
        await leader.knows("envoy")
        more = (service("more"), endpoint_slice("more", "10.0.0.2"), route("more", [rule("/more", "more")]))
        leader.source.put(*more)
        await leader.knows("envoy", settled=False)
        follower.source.put(*more)
        response = await envoy.receive()
        assert response.type_url == CLUSTER
        await leader.knows("envoy", settled=False)
        await envoy.ack(response)
        await envoy.take()
        await leader.knows("envoy")


async def test_a_rejection_at_the_follower_is_named_by_the_leader(world: World, stack: AsyncExitStack) -> None:
    leader, follower = await two(world, stack)
    async with follower.envoy() as envoy:
        await envoy.subscribe(LISTENER)
        await envoy.nack(await envoy.receive(), "no such filter")
        await until(lambda: said(leader)[0] == "False", what="the rejection", detail=lambda: str(said(leader)))
        assert "no such filter" in said(leader)[1]


async def test_an_envoy_that_went_counts_for_a_while_and_one_that_is_back_once(
    world: World, stack: AsyncExitStack
) -> None:
    leader, follower = await two(world, stack)
    async with follower.envoy() as envoy:
        await envoy.settle()
        await leader.knows("envoy")
    await until(lambda: not follower.plane.cache.clients(), what="the end of the stream")
    await leader.knows("envoy")
    async with leader.envoy() as envoy:
        await envoy.settle()
        await leader.knows("envoy")
        assert leader.replicas.clients(OWNER) == list(leader.plane.cache.clients(OWNER))


async def test_a_follower_that_dies_leaves_its_envoys_known_for_a_while(world: World, stack: AsyncExitStack) -> None:
    leader, follower = await two(world, stack)
    async with follower.envoy() as envoy:
        await envoy.settle()
        await leader.knows("envoy")
        await follower.stop()
        await leader.knows("envoy")
        assert said(leader)[0] == "True"


async def test_who_comes_to_lead_is_told_by_the_others_and_says_nothing_before(
    world: World, stack: AsyncExitStack
) -> None:
    first, second = await two(world, stack)
    async with first.envoy() as envoy:
        await envoy.settle()
        await until(lambda: first.replicas.withheld_s(OWNER) > 0, what="the first to wait for the second")
        second.expected = frozenset({"one"})
        world.leads(second)
        assert second.replicas.withheld_s(OWNER) > 0
        await second.knows("envoy")
        await until(lambda: second.replicas.withheld_s(OWNER) == 0, what="an end of waiting", within_s=3)
        assert said(second)[0] == "True"
        assert first.replicas.withheld_s(OWNER) == 0


def broken(path: str = "/open") -> dict[str, object]:
    """The route of `SERVED`, with a regular expression that cannot be read."""
    found = rule(path, "web")
    found["matches"] = [{"path": {"type": "RegularExpression", "value": "("}}]
    return route("open", [found])


async def test_a_replica_that_starts_when_an_object_is_bad_serves_what_stands_in_for_it(
    world: World, stack: AsyncExitStack
) -> None:
    leader = await world.replica(stack, "one")
    world.leads(leader)
    await until(lambda: leader.plane.ready, what="the first snapshot")
    bad = broken()
    key = key_of(bad)
    assert key is not None
    leader.source.put(bad)
    await until(lambda: key in leader.plane.engine.refused, what="the bad version")
    follower = await world.replica(stack, "two", *SERVED[:-1], bad)
    assert not follower.plane.ready
    await until(lambda: follower.plane.ready, what="the first snapshot", within_s=2.5)
    assert follower.accepted(key) == leader.accepted(key) is not None
    assert follower.plane.cache.snapshot(OWNER) == leader.plane.cache.snapshot(OWNER)


async def test_a_leader_that_started_when_an_object_was_bad_learns_what_stood_in_for_it(
    world: World, stack: AsyncExitStack
) -> None:
    old = await world.replica(stack, "old")
    bad = broken()
    key = key_of(bad)
    assert key is not None
    old.source.put(bad)
    await until(lambda: key in old.plane.engine.refused, what="the bad version")
    new = await world.replica(stack, "new", *SERVED[:-1], bad)
    await until(lambda: new.plane.ready, what="the first snapshot")
    assert new.accepted(key) is None
    world.leads(new)
    await until(lambda: new.accepted(key) is not None, what="what the other remembers")
    assert new.plane.cache.snapshot(OWNER) == old.plane.cache.snapshot(OWNER)


async def test_where_replicas_remember_different_versions_the_leaders_is_in_force(
    world: World, stack: AsyncExitStack
) -> None:
    leader = await world.replica(stack, "one")
    follower = await world.replica(stack, "two", *SERVED[:-1], route("open", [rule("/other", "web")]))
    bad = broken()
    key = key_of(bad)
    assert key is not None
    for each in (leader, follower):
        each.source.put(bad)
        await until(lambda each=each: key in each.plane.engine.refused, what="the bad version")
    assert follower.plane.cache.snapshot(OWNER) != leader.plane.cache.snapshot(OWNER)
    world.leads(leader)
    await until(lambda: follower.accepted(key) == leader.accepted(key), what="agreement")
    assert follower.plane.cache.snapshot(OWNER) == leader.plane.cache.snapshot(OWNER)
    # What was decided of one bad version says nothing of the next.
    good = route("open", [rule("/good", "web")])
    follower.source.put(good)
    follower.source.put(broken("/again") | {"spec": {**broken()["spec"], "hostnames": ["a.example.com"]}})  # type: ignore[dict-item]
    await until(lambda: follower.accepted(key) != leader.accepted(key), what="the newer good version")


@pytest.mark.parametrize("account", [("demo", "dragoman-edge"), ("system", "dragoman-authz")])
async def test_who_is_no_replica_is_told_nothing_and_not_listened_to(
    world: World, stack: AsyncExitStack, account: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    leader = await world.replica(stack, "one")
    hostile = await world.replica(stack, "two", account=account)
    world.leads(leader)
    async with hostile.envoy() as envoy:
        await envoy.settle()
        await until(lambda: leader.refused() > 0, what="the refusal")
        assert leader.replicas.clients(OWNER) == []
    assert hostile.token.read_text() not in caplog.text


async def test_a_replica_is_sent_no_resources(world: World, stack: AsyncExitStack) -> None:
    leader = await world.replica(stack, "one")
    world.issuer.token = _as_replica(world.issuer.token)  # type: ignore[method-assign]
    async with leader.envoy() as envoy:
        with pytest.raises((grpc.aio.AioRpcError, EOFError), match="PERMISSION_DENIED"):
            await envoy.fetch(CLUSTER)


def _as_replica(sign: Callable[..., str]) -> Callable[..., str]:
    return lambda *_: sign("system", "dragoman-controlplane")


def limited(requests: int) -> Manifest:
    target = {"group": GATEWAY_GROUP, "kind": "HTTPRoute", "name": "open"}
    limit = {"global": {"rules": [{"limit": {"requests": requests, "unit": "Minute"}}]}}
    return manifest(
        "dragoman.dev/v1alpha1", "BackendTrafficPolicy", "limit", {"targetRefs": [target], "rateLimit": limit}
    )


@pytest.mark.parametrize("worker_at_leader", [True, False])
async def test_routes_wait_for_workers_that_another_replica_serves(
    world: World, stack: AsyncExitStack, worker_at_leader: bool
) -> None:
    leader, follower = await two(world, stack)
    await until(lambda: follower.following(), what="the follower to follow")
    near, far = (follower, leader) if worker_at_leader else (leader, follower)
    async with far.limiter() as worker, near.envoy() as envoy:
        await worker.fetch(RATE_LIMIT_CONFIG)
        await envoy.settle()
        await leader.knows("envoy")
        await until(lambda: near.replicas.workers_elsewhere(RATE_LIMIT_OWNER), what="the worker to be known")
        for each in (leader, follower):
            each.source.put(limited(10))
        config = await worker.receive()
        routes = asyncio.create_task(until_routes(envoy))
        assert not (await asyncio.wait((routes,), timeout=0.1))[0]
        await worker.ack(config)
        await routes
        assert near.overdue("policy") == 0


async def until_routes(envoy: Envoy) -> None:
    while (await envoy.take()).type_url != ROUTE:
        pass
