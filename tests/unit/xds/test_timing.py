"""What waits for what, for how long: a cache without a network, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from controlplane.xds.cache import Observers, Session, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.identity import AUTHZ_OWNER
from controlplane.xds.order import Timing
from controlplane.xds.requests import Request
from controlplane.xds.resources import AUTHZ_POLICY, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, Resource
from controlplane.xds.subscription import Outgoing
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.model import Clock

OWNER = "demo/edge"


class Peer:
    """A client whose every message the test decides."""

    def __init__(self, cache: SnapshotCache, owner: str = OWNER) -> None:
        self.cache = cache
        self.woken = 0
        self.session: Session = cache.attach(owner, "peer", "delta", self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, type_url: str, *names: str, has: Mapping[str, str] | None = None) -> None:
        request = Request(type_url, subscribe=names, initial_versions=has or {})
        assert self.cache.handle(self.session, request) is None

    def take(self) -> Outgoing | None:
        return self.cache.next_response(self.session)

    def ack(self, out: Outgoing | None) -> None:
        assert out is not None
        assert self.cache.handle(self.session, Request(out.type_url, out.nonce)) is None

    def nack(self, out: Outgoing | None, error: str = "no") -> None:
        assert out is not None
        assert self.cache.handle(self.session, Request(out.type_url, out.nonce, error)) is None

    def take_all(self) -> list[tuple[str, list[str], list[str]]]:
        """Takes and accepts all that is to be had now: short type, names, names removed."""
        seen: list[tuple[str, list[str], list[str]]] = []
        while (out := self.take()) is not None:
            self.ack(out)
            seen.append((out.type_url.rpartition(".")[2], [r.name for r in out.resources], list(out.removed)))
        return seen

    def wakes_in(self, clock: Clock) -> float:
        assert self.session.client.wake_at is not None
        return self.session.client.wake_at - clock.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nacks() -> list[Nack]:
    return []


@pytest.fixture
def cache(clock: Clock, nacks: list[Nack]) -> SnapshotCache:
    return SnapshotCache(clock=clock, timing=Timing(), observers=Observers(on_nack=nacks.append))


def publish(cache: SnapshotCache, *resources: Resource, policies: Iterable[str] = ()) -> None:
    made = snapshot(*(plain(AUTHZ_POLICY, name) for name in policies))
    cache.publish({OWNER: snapshot(*resources), AUTHZ_OWNER: made})


def a_with_route(text: str = "") -> tuple[Resource, ...]:
    return plain(CLUSTER, "a"), plain(ENDPOINT, "a"), plain(ROUTE, "r", f"a{text}")


@pytest.fixture
def envoy(cache: SnapshotCache) -> Peer:
    """Has cluster a with its endpoints, and route r."""
    publish(cache, *a_with_route())
    peer = Peer(cache)
    for type_url, names in ((CLUSTER, ()), (ENDPOINT, ("a",)), (ROUTE, ("r",))):
        peer.ask(type_url, *names)
        assert peer.take_all()
    return peer


def test_routes_wait_until_the_endpoints_of_a_new_cluster_are_acknowledged(cache: SnapshotCache, envoy: Peer) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b"), plain(ENDPOINT, "b"))
    assert envoy.take_all() == [("Cluster", ["b"], [])]
    envoy.ask(ENDPOINT, "b")
    endpoints = envoy.take()
    assert envoy.take() is None
    envoy.ack(endpoints)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]


def test_routes_do_not_wait_for_ever_for_endpoints(cache: SnapshotCache, envoy: Peer, clock: Clock) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b"), plain(ENDPOINT, "b"))
    envoy.take_all()
    envoy.ask(ENDPOINT, "b")
    assert envoy.take() is not None
    assert envoy.take() is None
    assert envoy.wakes_in(clock) == pytest.approx(5.0)
    clock.advance(5.0)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]


def test_a_cluster_whose_endpoints_nobody_asks_for_is_waited_for_shortly(
    cache: SnapshotCache, envoy: Peer, clock: Clock
) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b"), plain(ENDPOINT, "b"))
    assert envoy.take_all() == [("Cluster", ["b"], [])]
    assert envoy.wakes_in(clock) == pytest.approx(1.0)
    clock.advance(1.0)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]


def test_a_cluster_with_health_checks_is_given_the_time_that_they_take(
    cache: SnapshotCache, envoy: Peer, clock: Clock
) -> None:
    slow = Resource.of(CLUSTER, "b", b"b", warm_s=0.7)
    publish(cache, *a_with_route("b"), slow, plain(ENDPOINT, "b"))
    assert envoy.take_all() == [("Cluster", ["b"], [])]
    envoy.ask(ENDPOINT, "b")
    assert envoy.take_all() == [("ClusterLoadAssignment", ["b"], [])]
    assert envoy.wakes_in(clock) == pytest.approx(0.7)
    clock.advance(0.7)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]


def test_clusters_that_warm_for_ever_do_not_hold_up_what_follows_for_ever(
    cache: SnapshotCache, envoy: Peer, clock: Clock
) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b"))
    assert envoy.take() is not None  # Envoy answers only when b is warm.
    assert envoy.take() is None
    clock.advance(5.0)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]
    publish(cache, *a_with_route("c"), plain(CLUSTER, "b"), plain(CLUSTER, "c"))
    assert envoy.take_all() == [("Cluster", ["c"], []), ("RouteConfiguration", ["r"], [])]


def test_a_changed_cluster_is_followed_by_its_endpoints_before_it_is_acknowledged(
    cache: SnapshotCache, envoy: Peer
) -> None:
    publish(cache, plain(CLUSTER, "a", "2"), plain(ENDPOINT, "a"), plain(ROUTE, "r", "a"))
    clusters, endpoints = envoy.take(), envoy.take()
    assert clusters is not None
    assert endpoints is not None
    assert (clusters.type_url, endpoints.type_url) == (CLUSTER, ENDPOINT)


def test_after_a_rejection_later_types_wait_for_a_snapshot_that_puts_it_right(
    cache: SnapshotCache, envoy: Peer, clock: Clock, nacks: list[Nack]
) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b", "bad"))
    envoy.nack(envoy.take())
    assert [nack.names for nack in nacks] == [("b",)]
    assert envoy.take() is None
    assert envoy.wakes_in(clock) == pytest.approx(1.0)
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b", "good"))
    assert [seen[0] for seen in envoy.take_all()] == ["Cluster", "RouteConfiguration"]


def test_after_a_rejection_later_types_go_on_after_a_while(cache: SnapshotCache, envoy: Peer, clock: Clock) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b", "bad"))
    envoy.nack(envoy.take())
    clock.advance(1.0)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]


def test_a_cluster_drains_before_it_is_removed(cache: SnapshotCache, envoy: Peer, clock: Clock) -> None:
    publish(cache, plain(ROUTE, "r", "nothing"))
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]
    assert cache.settled(OWNER)
    assert envoy.wakes_in(clock) == pytest.approx(5.0)
    clock.advance(5.0)
    assert envoy.take_all() == [("Cluster", [], ["a"]), ("ClusterLoadAssignment", [], ["a"])]


def test_a_cluster_that_comes_back_while_it_drains_stays(cache: SnapshotCache, envoy: Peer, clock: Clock) -> None:
    publish(cache, plain(ROUTE, "r", "nothing"))
    envoy.take_all()
    publish(cache, *a_with_route())
    clock.advance(10.0)
    assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]


def test_routes_arrive_though_new_clusters_never_cease(cache: SnapshotCache, envoy: Peer, clock: Clock) -> None:
    arrived = False
    for number in range(60):
        clusters = [plain(CLUSTER, f"c{n}") for n in range(number + 1)]
        publish(cache, *a_with_route(str(number)), *clusters)
        out = envoy.take()
        arrived = arrived or (out is not None and out.type_url == ROUTE)
        clock.advance(0.1)
        publish(cache, *a_with_route(f"{number}+"), *clusters, plain(CLUSTER, "x", str(number)))
        if out is not None:
            envoy.ack(out)
    assert arrived


def test_a_new_snapshot_during_a_push_replaces_it(cache: SnapshotCache, envoy: Peer) -> None:
    publish(cache, *a_with_route("b"), plain(CLUSTER, "b"))
    first = envoy.take()
    publish(cache, *a_with_route("c"), plain(CLUSTER, "c"))
    envoy.ack(first)
    assert envoy.take_all() == [("Cluster", ["c"], []), ("RouteConfiguration", ["r"], [])]


def test_a_new_listener_s_routes_are_answered_when_its_clusters_are_there(cache: SnapshotCache, envoy: Peer) -> None:
    envoy.ask(LISTENER)
    envoy.take_all()
    publish(cache, *a_with_route(), plain(LISTENER, "l"), plain(ROUTE, "new", "a"))
    assert envoy.take_all() == [("Listener", ["l"], [])]
    envoy.ask(ROUTE, "new")
    assert envoy.take_all() == [("RouteConfiguration", ["new"], [])]


class TestPolicies:
    """Routes wait for the services, but not for ever."""

    @pytest.fixture
    def worker(self, cache: SnapshotCache, envoy: Peer) -> Peer:
        peer = Peer(cache, AUTHZ_OWNER)
        peer.ask(AUTHZ_POLICY, "*")
        peer.take_all()
        return peer

    def test_routes_wait_until_every_worker_has_its_policies(
        self, cache: SnapshotCache, envoy: Peer, worker: Peer
    ) -> None:
        publish(cache, *a_with_route("p"), policies=["p"])
        policy = worker.take()
        assert envoy.take() is None
        woken = envoy.woken
        worker.ack(policy)
        assert envoy.woken > woken
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_routes_go_on_when_a_worker_does_not_answer(
        self, cache: SnapshotCache, envoy: Peer, worker: Peer, clock: Clock
    ) -> None:
        publish(cache, *a_with_route("p"), policies=["p"])
        worker.take()
        assert envoy.take() is None
        assert envoy.wakes_in(clock) == pytest.approx(0.5)
        clock.advance(0.5)
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_a_worker_that_hangs_delays_only_one_push(
        self, cache: SnapshotCache, envoy: Peer, worker: Peer, clock: Clock
    ) -> None:
        publish(cache, *a_with_route("p"), policies=["p"])
        stuck = worker.take()
        assert envoy.take() is None
        clock.advance(0.5)
        assert envoy.take_all()
        publish(cache, *a_with_route("q"), policies=["p", "q"])
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]
        worker.ack(stuck)
        worker.take_all()
        publish(cache, *a_with_route("s"), policies=["p", "q", "s"])
        assert envoy.take() is None, "once it answers it is waited for again"

    def test_a_worker_that_rejects_has_answered(self, cache: SnapshotCache, envoy: Peer, worker: Peer) -> None:
        publish(cache, *a_with_route("p"), policies=["p"])
        worker.nack(worker.take())
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_a_worker_that_goes_away_is_not_waited_for(self, cache: SnapshotCache, envoy: Peer, worker: Peer) -> None:
        publish(cache, *a_with_route("p"), policies=["p"])
        assert envoy.take() is None
        cache.detach(worker.session)
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_after_a_start_routes_wait_for_the_first_worker_of_a_service_that_is_about(
        self, cache: SnapshotCache, envoy: Peer, clock: Clock
    ) -> None:
        cache.await_workers([AUTHZ_OWNER])
        publish(cache, *a_with_route("p"), policies=["p"])
        assert envoy.take() is None
        clock.advance(2)
        assert envoy.take() is None, "longer than for an answer: nobody is there who could answer"
        late = Peer(cache, AUTHZ_OWNER)
        late.ask(AUTHZ_POLICY, "*")
        policy = late.take()
        assert envoy.take() is None
        late.ack(policy)
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_what_a_worker_has_from_before_a_restart_outlives_it_for_a_while(
        self, cache: SnapshotCache, clock: Clock
    ) -> None:
        publish(cache, policies=["q"])
        late = Peer(cache, AUTHZ_OWNER)
        late.ask(AUTHZ_POLICY, "*", has={"p": "1"})
        assert late.take_all() == [("Policy", ["q"], [])]
        clock.advance(59)
        assert late.take_all() == [], "routes that are in force may name it"
        clock.advance(1)
        assert late.take_all() == [("Policy", [], ["p"])]

    def test_extensions_wait_with_the_routes_for_the_first_worker(
        self, cache: SnapshotCache, envoy: Peer, clock: Clock
    ) -> None:
        cache.await_workers([AUTHZ_OWNER])
        envoy.ask(EXTENSION_CONFIG, "e")
        envoy.take_all()
        publish(cache, *a_with_route("p"), plain(EXTENSION_CONFIG, "e"), policies=["p"])
        assert envoy.take() is None, "routes of before may name what is gone from it"
        clock.advance(5)
        assert [each[0] for each in envoy.take_all()] == ["TypedExtensionConfig", "RouteConfiguration"]

    def test_a_worker_that_never_comes_is_waited_for_once_and_not_for_ever(
        self, cache: SnapshotCache, envoy: Peer, clock: Clock
    ) -> None:
        cache.await_workers([AUTHZ_OWNER])
        publish(cache, *a_with_route("p"), policies=["p"])
        assert envoy.take() is None
        assert envoy.wakes_in(clock) == pytest.approx(5.0)
        clock.advance(5)
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]
        publish(cache, *a_with_route("q"), policies=["p", "q"])
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_no_worker_is_waited_for_where_there_is_no_policy(self, cache: SnapshotCache, envoy: Peer) -> None:
        cache.await_workers([AUTHZ_OWNER])
        publish(cache, *a_with_route("p"))
        assert envoy.take_all() == [("RouteConfiguration", ["r"], [])]

    def test_a_policy_outlives_its_last_reference_for_a_while(
        self, cache: SnapshotCache, worker: Peer, clock: Clock
    ) -> None:
        publish(cache, policies=["p"])
        worker.take_all()
        publish(cache, policies=["q"])
        assert worker.take_all() == [("Policy", ["q"], [])]
        late = Peer(cache, AUTHZ_OWNER)
        late.ask(AUTHZ_POLICY, "*")
        assert late.take_all() == [("Policy", ["p", "q"], [])]
        clock.advance(59)
        cache.prune()
        assert worker.take_all() == []
        clock.advance(1)
        cache.prune()
        assert worker.take_all() == [("Policy", [], ["p"])]


async def test_waiting_for_the_clients_ends_when_all_have_answered(cache: SnapshotCache, envoy: Peer) -> None:
    publish(cache, *a_with_route("2"))
    assert not cache.settled(OWNER)
    assert not await cache.wait_settled(OWNER, timeout_s=0.01)
    envoy.take_all()
    assert cache.settled(OWNER)
    assert await cache.wait_settled(OWNER, timeout_s=5)
    assert cache.settled("demo/nobody")
