"""Snapshots from before a restart: clients are sent what they lack, and nothing that they have is replaced or taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from controlplane.xds.cache import Session, SnapshotCache
from controlplane.xds.order import Timing
from controlplane.xds.requests import Request
from controlplane.xds.resources import AUTHZ_POLICY, CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Resource, Snapshot
from controlplane.xds.server import AdsServer
from controlplane.xds.subscription import Outgoing
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.wire_clients import DeltaClient, SotwClient, names_of

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"


def kept(*resources: Resource) -> Snapshot:
    return Snapshot(snapshot(*resources).resources, kept=True)


class Peer:
    """A client without a wire: what it is sent, it acknowledges."""

    def __init__(self, cache: SnapshotCache, *, sotw: bool = False) -> None:
        self._cache = cache
        self._sotw = sotw
        self._names: dict[str, tuple[str, ...]] = {}
        self._session: Session = cache.attach(OWNER, "envoy", "sotw" if sotw else "delta", lambda: None)

    def ask(self, type_url: str, *names: str, has: Mapping[str, str] | None = None, version: str = "") -> None:
        self._names[type_url] = names
        request = Request(type_url, subscribe=names, initial_versions=has or {}, version=version)
        assert self._cache.handle(self._session, request) is None

    def sent(self) -> list[tuple[str, list[str], list[str]]]:
        """Takes everything that may be sent now: type, names, names that are gone."""
        taken: list[tuple[str, list[str], list[str]]] = []
        while (out := self._cache.next_response(self._session)) is not None:
            taken.append((out.type_url, [each.name for each in out.resources], list(out.removed)))
            self._answer(out)
        return taken

    def _answer(self, out: Outgoing) -> None:
        # The state of the world repeats at each answer what it is subscribed to.
        names = self._names[out.type_url] if self._sotw else ()
        self._cache.handle(self._session, Request(out.type_url, nonce=out.nonce, subscribe=names, version=out.version))


@pytest.fixture
def cache() -> SnapshotCache:
    return SnapshotCache(timing=Timing(drain_s=0.0, subscribe_grace_s=0.0))


def test_a_client_with_nothing_is_sent_what_was_kept(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(CLUSTER, "a"), plain(ROUTE, "r"))})
    peer = Peer(cache)
    peer.ask(CLUSTER)
    peer.ask(ROUTE, "r")
    assert peer.sent() == [(CLUSTER, ["a"], []), (ROUTE, ["r"], [])]


def test_what_a_client_has_is_neither_replaced_nor_removed_by_what_was_kept(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(CLUSTER, "a", "older"), plain(CLUSTER, "b"))})
    peer = Peer(cache)
    peer.ask(CLUSTER, has={"a": plain(CLUSTER, "a", "newer").version, "gone": "1"})
    assert peer.sent() == [(CLUSTER, ["b"], [])]


def test_a_name_that_was_not_kept_waits_for_the_source(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(LISTENER, "l"))})
    peer = Peer(cache)
    peer.ask(SECRET, "certificate")
    peer.ask(LISTENER)
    # Nothing is said of the certificate, and what comes after it in order does not wait for it.
    assert peer.sent() == [(LISTENER, ["l"], [])]
    cache.publish({OWNER: snapshot(plain(LISTENER, "l"), plain(SECRET, "certificate"))})
    assert peer.sent() == [(SECRET, ["certificate"], [])]


def test_a_name_that_there_never_was_is_answered_when_the_source_is_read(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(LISTENER, "l"))})
    peer = Peer(cache)
    peer.ask(SECRET, "nobody")
    assert peer.sent() == []
    cache.publish({OWNER: snapshot(plain(LISTENER, "l"))})
    assert peer.sent() == [(SECRET, [], ["nobody"])]


def test_a_secret_that_was_not_kept_stays_with_who_has_it(cache: SnapshotCache) -> None:
    secret = plain(SECRET, "certificate")
    cache.publish({OWNER: kept(plain(LISTENER, "l"))})
    peer = Peer(cache)
    peer.ask(SECRET, "certificate", has={"certificate": secret.version})
    assert peer.sent() == []
    cache.publish({OWNER: snapshot(plain(LISTENER, "l"), secret)})
    # The subscription is answered at last, with nothing that the client has.
    assert peer.sent() == [(SECRET, [], [])]


def test_the_source_brings_what_is_new_or_changed_and_takes_what_is_gone(cache: SnapshotCache) -> None:
    same, gone = plain(CLUSTER, "same"), plain(CLUSTER, "gone")
    cache.publish({OWNER: kept(same, gone, plain(CLUSTER, "changed", "1"))})
    peer = Peer(cache)
    peer.ask(CLUSTER)
    assert peer.sent() == [(CLUSTER, ["changed", "gone", "same"], [])]
    cache.publish({OWNER: snapshot(same, plain(CLUSTER, "changed", "2"), plain(CLUSTER, "new"))})
    assert peer.sent() == [(CLUSTER, ["changed", "new"], []), (CLUSTER, [], ["gone"])]


def test_who_came_back_is_sent_by_the_source_only_what_it_has_not(cache: SnapshotCache) -> None:
    a, b = plain(CLUSTER, "a"), plain(CLUSTER, "b", "2")
    cache.publish({OWNER: kept(a, plain(CLUSTER, "b", "1"))})
    peer = Peer(cache)
    peer.ask(CLUSTER, has={"a": a.version, "b": plain(CLUSTER, "b", "1").version, "gone": "1"})
    assert peer.sent() == []
    cache.publish({OWNER: snapshot(a, b)})
    assert peer.sent() == [(CLUSTER, ["b"], []), (CLUSTER, [], ["gone"])]


def test_a_source_that_says_the_same_causes_no_message_to_who_was_served(cache: SnapshotCache) -> None:
    resources = [plain(CLUSTER, "a"), plain(ENDPOINT, "a"), plain(LISTENER, "l"), plain(ROUTE, "r")]
    cache.publish({OWNER: kept(*resources)})
    peer = Peer(cache)
    peer.ask(CLUSTER)
    peer.ask(LISTENER)
    peer.ask(ENDPOINT, "a")
    peer.ask(ROUTE, "r")
    assert len(peer.sent()) == 4
    cache.publish({OWNER: snapshot(*resources)})
    assert peer.sent() == []
    assert cache.settled()


def test_an_owner_that_was_not_kept_waits(cache: SnapshotCache) -> None:
    cache.publish({"demo/other": kept(plain(CLUSTER, "a"))})
    peer = Peer(cache)
    peer.ask(CLUSTER)
    assert peer.sent() == []
    assert cache.kept() == {"demo/other"}


def test_an_owner_that_is_gone_from_the_source_loses_what_was_kept(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(LISTENER, "l"))})
    peer = Peer(cache)
    peer.ask(LISTENER)
    assert peer.sent() == [(LISTENER, ["l"], [])]
    cache.remove(OWNER)
    assert peer.sent() == [(LISTENER, [], ["l"])]
    assert cache.kept() == frozenset()


def test_policies_that_were_kept_linger_when_the_source_has_them_no_more() -> None:
    cache = SnapshotCache(clock=lambda: 0.0)
    cache.publish({OWNER: kept(plain(AUTHZ_POLICY, "old"))})
    cache.publish({OWNER: snapshot(plain(AUTHZ_POLICY, "new"))})
    served = cache.snapshot(OWNER)
    assert served is not None
    assert served.of_type(AUTHZ_POLICY).keys() == {"old", "new"}


def test_a_policy_stays_as_long_as_requests_may_need_it() -> None:
    now = [0.0]
    cache = SnapshotCache(clock=lambda: now[0])
    long, short = replace(plain(AUTHZ_POLICY, "long"), linger_s=600.0), plain(AUTHZ_POLICY, "short")
    cache.publish({OWNER: snapshot(long, short)})
    held: list[set[str]] = []
    for name, now[0] in (("a", 0.0), ("b", 61.0), ("c", 599.0), ("d", 601.0)):
        cache.publish({OWNER: snapshot(plain(AUTHZ_POLICY, name))})
        served = cache.snapshot(OWNER)
        assert served is not None
        held.append({"long", "short"} & served.of_type(AUTHZ_POLICY).keys())
    assert held == [{"long", "short"}, {"long"}, {"long"}, set()]


def test_a_new_client_of_the_state_of_the_world_is_sent_what_was_kept(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(CLUSTER, "a"), plain(ROUTE, "r"))})
    peer = Peer(cache, sotw=True)
    peer.ask(CLUSTER)
    peer.ask(ROUTE, "r", "withheld")
    assert peer.sent() == [(CLUSTER, ["a"], []), (ROUTE, ["r"], [])]
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"), plain(ROUTE, "r"), plain(ROUTE, "withheld"))})
    assert peer.sent() == [(ROUTE, ["r", "withheld"], [])]


def test_a_client_of_the_state_of_the_world_that_has_something_is_left_alone(cache: SnapshotCache) -> None:
    a = plain(CLUSTER, "a")
    cache.publish({OWNER: snapshot(a)})
    before = Peer(cache, sotw=True)
    before.ask(CLUSTER)
    (version,) = [out.version for out in [cache.next_response(before._session)] if out]  # pyright: ignore
    restarted = SnapshotCache()
    restarted.publish({OWNER: kept(plain(CLUSTER, "b"))})
    peer = Peer(restarted, sotw=True)
    peer.ask(CLUSTER, version=version)
    assert peer.sent() == []
    restarted.publish({OWNER: snapshot(a)})
    assert peer.sent() == []
    restarted.publish({OWNER: snapshot(plain(CLUSTER, "c"))})
    assert peer.sent() != []


def test_grpc_is_not_told_that_a_target_does_not_exist_because_it_was_not_kept(cache: SnapshotCache) -> None:
    cache.publish({OWNER: kept(plain(LISTENER, "one"))})
    peer = Peer(cache, sotw=True)
    peer.ask(LISTENER, "one", "other")
    assert peer.sent() == []
    cache.publish({OWNER: snapshot(plain(LISTENER, "one"))})
    assert peer.sent() == [(LISTENER, ["one"], [])]


async def test_both_protocols_are_served_from_what_was_kept_on_the_wire(start_ads: StartAds, stack: Any) -> None:
    cache = SnapshotCache()
    cache.publish({OWNER: kept(plain(CLUSTER, "a"))})
    (address,) = (await start_ads(cache)).addresses
    delta = await stack.enter_async_context(DeltaClient(address, OWNER))
    assert names_of(await delta.fetch(CLUSTER)) == ["a"]
    sotw = await stack.enter_async_context(SotwClient(address, OWNER))
    await sotw.request(CLUSTER)
    assert [each.value for each in (await sotw.receive()).resources] == [plain(CLUSTER, "a").body]
