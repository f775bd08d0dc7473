"""Delta ADS on the wire: subscriptions, answers, order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.order import Timing
from controlplane.xds.resources import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    SECRET,
    Resource,
)
from controlplane.xds.server import AdsServer
from tests.support.waiting import until
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.wire_clients import DeltaClient, names_of

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"
EVERYTHING = (SECRET, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE)


class Served:
    """A cache, its server, and a client of it."""

    def __init__(self, cache: SnapshotCache, client: DeltaClient) -> None:
        self.cache = cache
        self.client = client

    def publish(self, *resources: Resource) -> None:
        self.cache.publish({OWNER: snapshot(*resources)})


@pytest.fixture
async def served(start_ads: StartAds, stack: Any) -> Served:
    cache = SnapshotCache(timing=Timing(drain_s=0.0))
    (address,) = (await start_ads(cache)).addresses
    return Served(cache, await stack.enter_async_context(DeltaClient(address, OWNER)))


@pytest.mark.parametrize("names", [(), ("*",)], ids=["legacy", "star"])
async def test_a_wildcard_subscription_is_sent_everything(served: Served, names: tuple[str, ...]) -> None:
    served.publish(plain(CLUSTER, "a"), plain(CLUSTER, "b"), plain(ROUTE, "r"))
    response = await served.client.fetch(CLUSTER, names)
    assert names_of(response) == ["a", "b"]
    entry = response.resources[0]
    made = plain(CLUSTER, "a")
    assert (entry.version, entry.resource.type_url, entry.resource.value) == (made.version, CLUSTER, made.body)
    assert response.type_url == CLUSTER
    assert response.nonce


async def test_a_name_that_does_not_exist_is_answered_as_removed(served: Served) -> None:
    served.publish(plain(ROUTE, "r"))
    response = await served.client.fetch(ROUTE, ["r", "missing"])
    assert names_of(response) == ["r"]
    assert list(response.removed_resources) == ["missing"]
    served.publish(plain(ROUTE, "r"), plain(ROUTE, "missing"))
    assert names_of(await served.client.take()) == ["missing"]


@pytest.mark.parametrize("type_url", [*EVERYTHING, "type.googleapis.com/some.Other"])
async def test_a_type_without_resources_is_answered_with_nothing(served: Served, type_url: str) -> None:
    served.publish()
    response = await served.client.fetch(type_url)
    assert not response.resources
    assert not response.removed_resources


async def test_a_subscription_before_the_first_snapshot_waits_for_it(served: Served) -> None:
    await served.client.subscribe(CLUSTER)
    with pytest.raises(TimeoutError):
        await served.client.receive(within_s=0.1)


async def test_an_owner_that_nobody_published_is_answered_once_the_first_snapshot_is_complete(served: Served) -> None:
    await served.client.subscribe(CLUSTER)
    await served.client.subscribe(ROUTE, ["r"])
    served.cache.complete()
    assert names_of(await served.client.take()) == []
    assert list((await served.client.take()).removed_resources) == ["r"]
    served.publish(plain(CLUSTER, "a"))
    assert names_of(await served.client.take()) == ["a"]


async def test_a_client_that_comes_back_is_sent_only_what_it_lacks(served: Served) -> None:
    same, new = plain(CLUSTER, "same"), plain(CLUSTER, "changed", "2")
    served.publish(same, new)
    versions = {"same": same.version, "changed": plain(CLUSTER, "changed", "1").version, "gone": "x"}
    response = await served.client.fetch(CLUSTER, ["*"], versions=versions)
    assert names_of(response) == ["changed"]
    # What vanished goes once nothing can refer to it: the client may have routes that it has not spoken of yet.
    assert list((await served.client.take()).removed_resources) == ["gone"]


async def test_a_client_that_has_everything_is_answered_with_nothing(served: Served) -> None:
    made = plain(ROUTE, "r")
    served.publish(made)
    response = await served.client.fetch(ROUTE, ["r"], versions={"r": made.version})
    assert not response.resources
    assert not response.removed_resources


async def test_a_name_that_is_asked_for_again_is_sent_again(served: Served) -> None:
    served.publish(plain(ENDPOINT, "a"))
    assert names_of(await served.client.fetch(ENDPOINT, ["a"])) == ["a"]
    assert names_of(await served.client.fetch(ENDPOINT, ["a"])) == ["a"]


async def test_what_is_unsubscribed_is_not_sent_any_more(served: Served) -> None:
    served.publish(plain(ENDPOINT, "a"), plain(ENDPOINT, "b"))
    await served.client.fetch(ENDPOINT, ["a", "b"])
    await served.client.subscribe(ENDPOINT, unsubscribe=["a"])
    await served.client.fetch(ROUTE, ["none"])
    served.publish(plain(ENDPOINT, "a", "2"), plain(ENDPOINT, "b", "2"))
    assert names_of(await served.client.take()) == ["b"]


async def test_the_wildcard_can_be_given_up_for_names(served: Served) -> None:
    served.publish(plain(CLUSTER, "a"), plain(CLUSTER, "b"))
    await served.client.fetch(CLUSTER)
    assert names_of(await served.client.fetch(CLUSTER, ["a"], unsubscribe=["*"])) == ["a"]
    served.publish(plain(CLUSTER, "a", "2"), plain(CLUSTER, "b", "2"))
    assert names_of(await served.client.take()) == ["a"]


async def test_a_rejected_version_is_not_sent_again_until_it_changes(start_ads: StartAds) -> None:
    nacks: list[Nack] = []
    cache = SnapshotCache(observers=Observers(on_nack=nacks.append), timing=Timing(nack_hold_s=0.0))
    (address,) = (await start_ads(cache)).addresses
    cache.publish({OWNER: snapshot(plain(ROUTE, "r", "1", ("HTTPRoute demo/r",)))})
    async with DeltaClient(address, OWNER) as client:
        await client.subscribe(ROUTE, ["r"])
        await client.nack(await client.receive(), "no good")
        await client.fetch(ENDPOINT, ["none"])
        assert [(nack.names, nack.origins, nack.message) for nack in nacks] == [
            (("r",), ("HTTPRoute demo/r",), "no good")
        ]
        with pytest.raises(TimeoutError):
            await client.receive(within_s=0.1)


async def test_a_rejection_that_names_nobody_is_narrowed_down_to_the_culprit(start_ads: StartAds) -> None:
    nacks: list[Nack] = []
    cache = SnapshotCache(observers=Observers(on_nack=nacks.append))
    (address,) = (await start_ads(cache)).addresses
    cache.publish({OWNER: snapshot(*(plain(CLUSTER, f"c{n}", "bad" if n == 5 else "") for n in range(9)))})
    taken: set[str] = set()
    async with DeltaClient(address, OWNER) as client:
        await client.subscribe(CLUSTER)
        alone = False
        while not alone or len(taken) < 8:
            response = await client.receive()
            if "c5" in names_of(response):
                alone = names_of(response) == ["c5"]
                await client.nack(response, "something is wrong")
            else:
                taken.update(names_of(response))
                await client.ack(response)
        await until(lambda: nacks, what="the rejection")
    assert [nack.names for nack in nacks] == [("c5",)]


async def test_only_one_response_of_a_type_is_under_way(served: Served) -> None:
    served.publish(plain(CLUSTER, "a", "1"))
    await served.client.subscribe(CLUSTER)
    await served.client.receive()
    for text in "2345":
        served.publish(plain(CLUSTER, "a", text))
    with pytest.raises(TimeoutError):
        await served.client.receive(within_s=0.1)


async def test_the_newest_state_is_sent_after_the_answer(served: Served) -> None:
    served.publish(plain(CLUSTER, "a", "1"))
    await served.client.subscribe(CLUSTER)
    first = await served.client.receive()
    for text in "2345":
        served.publish(plain(CLUSTER, "a", text))
    await served.client.ack(first)
    assert (await served.client.take()).resources[0].resource.value == b"a=5"


async def test_an_answer_with_an_old_nonce_counts_for_nothing(served: Served) -> None:
    served.publish(plain(CLUSTER, "a", "1"))
    first = await served.client.fetch(CLUSTER)
    served.publish(plain(CLUSTER, "a", "2"))
    await served.client.receive()
    await served.client.ack(first)
    served.publish(plain(CLUSTER, "a", "3"))
    with pytest.raises(TimeoutError):
        await served.client.receive(within_s=0.1)


async def subscribe_to_everything(client: DeltaClient) -> None:
    for type_url in EVERYTHING:
        await client.fetch(type_url, ["*"])


async def test_additions_travel_one_type_after_another(served: Served) -> None:
    served.publish()
    await subscribe_to_everything(served.client)
    served.publish(*(plain(type_url, "x") for type_url in reversed(EVERYTHING)))
    assert [(await served.client.take()).type_url for _ in EVERYTHING] == list(EVERYTHING)


async def test_a_type_waits_for_the_answer_to_the_one_before(served: Served) -> None:
    served.publish()
    await subscribe_to_everything(served.client)
    served.publish(plain(CLUSTER, "x"), plain(ROUTE, "x"))
    assert (await served.client.receive()).type_url == CLUSTER
    with pytest.raises(TimeoutError):
        await served.client.receive(within_s=0.1)


async def test_removals_travel_after_what_refers_to_them(served: Served) -> None:
    served.publish(*(plain(type_url, "x") for type_url in EVERYTHING))
    await subscribe_to_everything(served.client)
    served.publish(plain(ROUTE, "y"))
    seen = [await served.client.take() for _ in range(7)]
    assert [(response.type_url, names_of(response), list(response.removed_resources)) for response in seen] == [
        (ROUTE, ["y"], []),
        (LISTENER, [], ["x"]),
        (ROUTE, [], ["x"]),
        (EXTENSION_CONFIG, [], ["x"]),
        (CLUSTER, [], ["x"]),
        (ENDPOINT, [], ["x"]),
        (SECRET, [], ["x"]),
    ]


async def test_nothing_is_removed_while_routes_are_rejected_that_may_still_name_it(served: Served) -> None:
    served.publish(plain(CLUSTER, "old"), plain(ROUTE, "r", "old"))
    await served.client.fetch(CLUSTER)
    await served.client.fetch(ROUTE, ["r"])
    served.publish(plain(CLUSTER, "new"), plain(ROUTE, "r", "new"))
    assert names_of(await served.client.take()) == ["new"]
    await served.client.nack(await served.client.receive())
    with pytest.raises(TimeoutError):
        await served.client.receive(within_s=0.1)


async def test_endpoints_do_not_wait_for_clusters(served: Served) -> None:
    served.publish(plain(CLUSTER, "a"), plain(ENDPOINT, "a", "1"))
    await served.client.fetch(CLUSTER)
    await served.client.fetch(ENDPOINT, ["a"])
    served.publish(plain(CLUSTER, "b"), plain(ENDPOINT, "a", "2"), plain(ENDPOINT, "b"))
    assert names_of(await served.client.receive()) == ["b"]
    assert names_of(await served.client.receive()) == ["a"]


async def test_other_owners_are_left_alone(served: Served) -> None:
    served.publish(plain(CLUSTER, "a"))
    await served.client.fetch(CLUSTER)
    served.cache.publish({"demo/other": snapshot(plain(CLUSTER, "secret"))})
    with pytest.raises(TimeoutError):
        await served.client.receive(within_s=0.1)


async def test_a_removed_owner_s_clients_are_told_to_drop_everything(served: Served) -> None:
    served.publish(plain(CLUSTER, "a"))
    await served.client.fetch(CLUSTER)
    served.cache.remove(OWNER)
    assert list((await served.client.take()).removed_resources) == ["a"]
