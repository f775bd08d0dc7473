"""What is said of all clients of an owner together is what is said of each, and is told only when it is another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.census import Census, Standing, Tally, census_of
from controlplane.xds.events import ClientSummary, TypeSummary
from controlplane.xds.order import Timing
from controlplane.xds.requests import Request
from controlplane.xds.resources import CLUSTER, LISTENER, ROUTE
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.model import Clock, ModelEnvoy, gateway, settle

OWNER = "demo/edge"

SUMMARIES = st.builds(
    ClientSummary,
    owner=st.just(OWNER),
    node_id=st.just("envoy"),
    protocol=st.just("delta"),
    settled=st.booleans(),
    types=st.dictionaries(
        st.sampled_from([CLUSTER, LISTENER]),
        st.builds(
            TypeSummary,
            subscribed=st.just(0),
            wildcard=st.just(True),
            known=st.integers(0, 1),
            pending=st.just(0),
            in_flight=st.booleans(),
            rejected=st.sampled_from([(), ("a",)]),
        ),
    ),
    unsettled_s=st.sampled_from([1.0, 2.0]),
)


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.none() | SUMMARIES), max_size=20))
def test_a_tally_says_of_clients_that_come_and_go_what_a_count_says(
    steps: list[tuple[int, ClientSummary | None]],
) -> None:
    tally, clients, now = Tally[int](), dict[int, ClientSummary](), 100.0
    for number, client in steps:
        before = tally.census(now)
        if client is None:
            clients.pop(number, None)
            moved = tally.drop(number)
        else:
            clients[number] = client if not client.settled else replace(client, unsettled_s=0.0)
            moved = tally.note(number, Standing.of(client), now - client.unsettled_s)
        after = tally.census(now)
        assert after == census_of(clients.values())
        assert moved == (_said(before) != _said(after))


def _said(census: Census) -> tuple[object, ...]:
    return bool(census.clients), bool(census.unsettled), bool(census.lacking), census.rejected


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cache(told: list[str]) -> SnapshotCache:
    return SnapshotCache(clock=Clock(), timing=Timing(drain_s=0.0), observers=Observers(on_settled=told.append))


def test_a_change_is_told_twice_however_many_clients_it_concerns(cache: SnapshotCache, told: list[str]) -> None:
    cache.publish({OWNER: gateway({"c": "1"}, {"r": ("c",)})})
    envoys = [ModelEnvoy(OWNER, f"envoy-{number}") for number in range(50)]
    for each in envoys:
        each.connect(cache)
    settle(*envoys)
    assert cache.settled(OWNER)
    told.clear()
    cache.publish({OWNER: gateway({"c": "1"}, {"r": ("c",)}, text="other")})
    assert not cache.settled(OWNER)
    assert cache.census(OWNER).unsettled == 50
    settle(*envoys)
    assert cache.settled(OWNER)
    assert told == [OWNER, OWNER]


def test_what_the_cache_says_of_all_is_what_it_says_of_each(cache: SnapshotCache, told: list[str]) -> None:
    cache.publish({OWNER: snapshot(plain(LISTENER, "l"), plain(CLUSTER, "c", "bad"))})
    first, second = (cache.attach(OWNER, name, "delta", lambda: None) for name in "ab")
    assert cache.census(OWNER) == Census(clients=2, lacking=2)
    for session in (first, second):
        cache.handle(session, Request(CLUSTER))
        cache.handle(session, Request(LISTENER))
    sent = cache.next_response(first)
    assert sent is not None
    cache.handle(first, Request(CLUSTER, sent.nonce, error="no"))
    assert cache.census(OWNER).rejected == {CLUSTER}
    assert cache.census(OWNER) == census_of(cache.clients(OWNER))
    told.clear()
    cache.detach(first)
    assert told == [OWNER], "nobody rejects it any more"
    assert cache.census(OWNER) == census_of(cache.clients(OWNER))
    cache.detach(second)
    assert cache.census(OWNER) == Census()
    assert cache.settled()


def test_a_feed_tells_of_the_clients_that_have_moved(cache: SnapshotCache) -> None:
    cache.publish({OWNER: snapshot(plain(ROUTE, "r"))})
    one, other = (cache.attach(OWNER, name, "delta", lambda: None) for name in "ab")
    feed = cache.feed()
    assert {client.node_id for client in feed.take(OWNER)[0]} == {"a", "b"}
    assert feed.owners() == ()
    cache.handle(one, Request(ROUTE, subscribe=("r",)))
    assert [(client.node_id, client.settled) for client in feed.take(OWNER)[0]] == [("a", False)]
    cache.detach(other)
    assert feed.take(OWNER) == ([], [other.number])
