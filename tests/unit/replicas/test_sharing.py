"""What travels between replicas, and what does not disturb it: slow readers, later versions, nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.replicas import METHOD
from controlplane.replicas.messages import Clients, Hello, MessageError, StandIn, StandIns, decode, encode
from controlplane.xds.events import ClientSummary, TypeSummary
from controlplane.xds.resources import LISTENER
from tests.support.certificates import Authority
from tests.support.jwks_server import JwksServer
from tests.support.manifests import Manifest, manifest, route, rule
from tests.support.tokens import SigningKey
from tests.support.waiting import until
from tests.unit.replicas.world import ACCOUNT, NAME, OWNER, SERVED, Replica, World
from tests.unit.xds.accounts import shown

KEY = ObjectKey(GATEWAY_GROUP, "HTTPRoute", "demo", "open")
CLIENT = ClientSummary("demo/edge", "envoy", "delta", True, {LISTENER: TypeSummary(1, True, 1, 0, False, ())}, number=7)


@pytest_asyncio.fixture
async def world(authority: Authority) -> AsyncIterator[World]:
    made = World(authority)
    yield made
    made.folder.cleanup()


class RawReplica:
    """A stream to a replica, with every message decided by the test."""

    def __init__(self, world: World, replica: Replica) -> None:
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(world.authority.cert_pem.encode())
        self._channel = grpc.aio.secure_channel(replica.address, credentials, options=options)
        self.call = self._channel.stream_stream(METHOD)(metadata=shown(world.issuer.token(*ACCOUNT)))

    async def __aenter__(self) -> RawReplica:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self._channel.close()

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        try:
            while isinstance(await asyncio.wait_for(self.call.read(), 30), bytes):
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details()


def test_messages_come_out_as_they_went_in() -> None:
    for message in (
        Hello(replica="one", address="10.0.0.1"),
        Clients(changed=(CLIENT,), gone=(3,), versions={OWNER: "v"}),
        StandIns(standing=(StandIn(key=KEY, of="digest", document="{}"),), over=(KEY,)),
    ):
        assert decode(encode(message)) == message


def test_what_a_later_version_adds_is_passed_over() -> None:
    document = json.loads(encode(Clients(changed=(CLIENT,))))
    document["mood"] = "good"
    document["changed"][0]["mood"] = "better"
    document["changed"][0]["types"][LISTENER]["mood"] = "best"
    assert decode(json.dumps(document).encode()) == Clients(changed=(CLIENT,))
    assert decode(b'{"kind": "weather", "rain": true}') is None


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"kind": "clients", "changed": 3}', b"\xff", b"{" * 10_000, b'"' + b"x" * (9 << 20)]
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(MessageError):
        decode(raw)


@pytest.mark.parametrize("first", [b"nonsense", encode(Clients()), encode(Hello(replica="one"))])
async def test_a_stream_that_begins_with_something_else_is_ended(
    world: World, stack: AsyncExitStack, first: bytes
) -> None:
    leader = await world.replica(stack, "one")
    world.leads(leader)
    async with RawReplica(world, leader) as raw:
        await raw.call.write(first)
        assert (await raw.ended())[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_replica_that_does_not_lead_sends_others_away(world: World, stack: AsyncExitStack) -> None:
    one = await world.replica(stack, "one")
    async with RawReplica(world, one) as raw:
        assert (await raw.ended()) == (grpc.StatusCode.UNAVAILABLE, "this replica does not lead")
    world.leads(one)
    async with RawReplica(world, one) as raw:
        await raw.call.write(encode(Hello(replica="raw")))
        await until(lambda: bool(list(one.replicas.members)), what="the follower")
        world.leads(None)
        assert (await raw.ended())[0] == grpc.StatusCode.UNAVAILABLE


async def test_a_follower_that_reads_nothing_holds_nobody_up(world: World, stack: AsyncExitStack) -> None:
    leader = await world.replica(stack, "one")
    follower = await world.replica(stack, "two")
    world.leads(leader)
    async with RawReplica(world, leader) as raw, follower.envoy() as envoy:
        await raw.call.write(encode(Hello(replica="raw")))
        await until(lambda: len(list(leader.replicas.members)) == 2, what="both")
        await envoy.settle()
        await leader.knows("envoy")
        # A megabyte for each change, none of which is read: what is told then is the newest alone.
        for number in range(40):
            good = route("open", [rule(f"/{number}", "web")]) | {"metadata": annotated("open", number)}
            leader.source.put(good)
            leader.source.put(bad(number))
        await until(lambda: "39" in str(leader.accepted(KEY).spec), what="the last change", within_s=20)
        async with follower.envoy("second") as second:
            await second.settle()
            await leader.knows("envoy", "second")


def annotated(name: str, number: int) -> dict[str, object]:
    return {"name": name, "namespace": "demo", "annotations": {"much": "x" * (1 << 18), "number": str(number)}}


def bad(number: int) -> Manifest:
    broken = {"matches": [{"path": {"type": "RegularExpression", "value": "(" * (number + 1)}}]}
    return route("open", [broken])


async def test_key_sets_are_fetched_by_who_leads_and_used_by_all(world: World, stack: AsyncExitStack) -> None:
    issuer = await stack.enter_async_context(JwksServer(SigningKey.make()))
    provider = {"name": "idp", "issuer": "https://idp.example", "remoteJWKS": {"uri": issuer.uri}}
    target = {"group": GATEWAY_GROUP, "kind": "HTTPRoute", "name": "open"}
    policy = manifest(
        "dragoman.dev/v1alpha1", "SecurityPolicy", "jwt", {"targetRefs": [target], "jwt": {"providers": [provider]}}
    )
    leader = await world.replica(stack, "one")
    world.leads(leader)
    follower = await world.replica(stack, "two")
    await until(lambda: follower.following(), what="the follower to follow")
    for each in (leader, follower):
        each.source.put(policy)
    for each in (leader, follower):
        await until(lambda each=each: each.key_set(issuer.uri) is not None, what="the key set")
    assert issuer.fetches == 1
    same = lambda: leader.plane.cache.snapshot(OWNER) == follower.plane.cache.snapshot(OWNER)  # noqa: E731
    await until(same, what="the same snapshot")
    late = await world.replica(stack, "three", *SERVED, policy)
    await until(lambda: late.plane.ready and late.following(), what="a third to follow")
    assert late.key_set(issuer.uri) == leader.key_set(issuer.uri)
    assert issuer.fetches == 1
    # Who leads next goes on with it.
    world.leads(follower)
    await until(lambda: issuer.fetches == 2, what="the new leader to fetch")
