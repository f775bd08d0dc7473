"""Whatever the order in which messages arrive, nothing refers to what is missing, and everybody converges."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.xds import overlay
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.events import Protocol
from controlplane.xds.identity import AUTHZ_OWNER, RATE_LIMIT_OWNER
from controlplane.xds.order import Timing
from controlplane.xds.resources import (
    AUTHZ_POLICY,
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    RATE_LIMIT_CONFIG,
    ROUTE,
    SECRET,
    Snapshot,
)
from controlplane.xds.subscription import Outgoing
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.model import Clock, ModelClient, ModelEnvoy, ModelLimiter, ModelWorker, gateway, needs, settle

OWNER = "demo/edge"
FOREVER = 1e9
GRACE_S = 100.0
# Nothing that is bounded in time may give up while messages are under way, or the model would see what it causes.
PATIENT = Timing(
    warm_wait_s=FOREVER,
    subscribe_grace_s=GRACE_S,
    nack_hold_s=FOREVER,
    drain_s=0.0,
    patience_s=0.02,
    policy_wait_s=FOREVER,
    linger_s=FOREVER,
)

CLUSTERS = [f"c{number}" for number in range(4)]
ROUTES = ["r0", "r1"]
POLICIES = ["p0", "p1", "p2"]
SECRETS = ["s0", "s1"]
CONFIGS = ["e0", "e1"]


@st.composite
def worlds(draw: st.DrawFn, *, clean: bool = False) -> dict[str, Snapshot]:
    """What is published: whatever is named is there, at whoever is to have it."""
    texts = ["1", "2"] if clean else ["1", "2", "bad"]
    clusters = draw(st.dictionaries(st.sampled_from(CLUSTERS), st.sampled_from(texts)))
    policies = draw(st.sets(st.sampled_from(POLICIES)))
    some = st.lists(st.sampled_from(sorted(clusters)), unique=True) if clusters else st.just(list[str]())
    routes = {name: tuple(draw(some)) for name in draw(st.sets(st.sampled_from(ROUTES)))}
    secrets = draw(st.dictionaries(st.sampled_from(SECRETS), st.sampled_from(["1", "2"])))
    configs = draw(st.dictionaries(st.sampled_from(CONFIGS), st.sampled_from(["1", "2"])))
    secret, config = (st.sampled_from(["", *sorted(each)]) for each in (secrets, configs))
    named = {name: (draw(secret), draw(config) if name in routes else "") for name in (*clusters, *routes)}
    text = draw(st.sampled_from(["", "" if clean else "bad"]))
    return {
        OWNER: gateway(clusters, routes, policies, text, named=named, secrets=secrets, configs=configs),
        # A policy that a route names is one of both services.
        AUTHZ_OWNER: snapshot(*(plain(AUTHZ_POLICY, name) for name in policies)),
        RATE_LIMIT_OWNER: snapshot(*(plain(RATE_LIMIT_CONFIG, name) for name in policies)),
    }


WHO = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("publish"), worlds()),
    st.tuples(st.just("publish"), worlds(clean=True)),
    st.tuples(st.just("serve"), WHO),
    st.tuples(st.just("serve"), WHO),
    st.tuples(st.just("receive"), WHO),
    st.tuples(st.just("receive"), WHO),
    st.tuples(st.just("upload"), WHO),
    st.tuples(st.just("upload"), WHO),
    st.tuples(st.just("settle"), st.none()),
    st.tuples(st.just("publish to one by one"), st.tuples(worlds(), st.permutations(range(4)))),
    st.tuples(st.just("settle one"), WHO),
    st.tuples(st.just("wait"), st.none()),
    st.tuples(st.just("reconnect"), WHO),
    st.tuples(st.just("restart"), worlds()),
    st.tuples(st.just("restart as it was"), st.none()),
)


@dataclass
class Scene:
    """Two Envoys and a worker, and the cache that they are connected to."""

    protocol: Protocol
    world: dict[str, Snapshot]
    clock: Clock = field(default_factory=Clock)
    cache: SnapshotCache = field(init=False)
    clients: list[ModelClient] = field(init=False)
    faults: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.clients = [
            ModelEnvoy(OWNER, "envoy-0", self.protocol, on_sent=self.judge),
            ModelEnvoy(OWNER, "envoy-1", self.protocol, asks_first=False, on_sent=self.judge),
            ModelWorker(AUTHZ_OWNER, "worker-0"),
            ModelLimiter(RATE_LIMIT_OWNER, "limiter-0"),
        ]
        self.start(self.world)
        settle(*self.clients)

    def publish(self, world: dict[str, Snapshot]) -> None:
        self.world = world
        self.cache.publish(world)

    def takes_away(self, world: dict[str, Snapshot], *clients: ModelClient) -> bool:
        """Whether a client of state of the world would lose at once what a world lacks: it doesn't say what it has."""
        if self.protocol == "delta":
            return False
        return any(
            client.held.get(type_url, {}).keys() - world[OWNER].of_type(type_url).keys()
            for client in clients
            if isinstance(client, ModelEnvoy)
            for type_url in (CLUSTER, LISTENER)
        )

    def start(self, world: dict[str, Snapshot]) -> None:
        self.world = world
        self.cache = SnapshotCache(timing=PATIENT, clock=self.clock)
        self.cache.publish(world)
        for client in self.clients:
            client.connect(self.cache)

    def step(self, action: str, value: Any) -> None:
        match action:
            case "publish":
                self.publish(value)
            case "restart" if not self.takes_away(value, *self.clients):
                self.start(value)
            case "restart as it was":
                if not self.takes_away(self.world, *self.clients):
                    self.start(self.world)
            case "reconnect" if not self.takes_away(self.world, self.clients[value]):
                self.clients[value].disconnect()
                self.clients[value].connect(self.cache)
            case "settle":
                settle(*self.clients)
            case "publish to one by one":
                world, order = value
                self.publish(world)
                for who in order:
                    settle(self.clients[who])
            case "settle one":
                settle(self.clients[value])
            case "restart" | "reconnect":
                pass
            case "wait":
                self.clock.advance(0.01)
            case "serve":
                self.clients[value].wire.serve()
            case "receive":
                self.clients[value].receive()
            case _:
                self.clients[value].wire.upload()

    def judge(self, out: Outgoing) -> None:
        """Notes routes that are sent while a worker, being subscribed, lacks the policies that they name."""
        if out.type_url != ROUTE:
            return
        for worker, type_url in ((self.clients[2], AUTHZ_POLICY), (self.clients[3], RATE_LIMIT_CONFIG)):
            if not worker.wire.session.client.summary().types:
                continue
            for route in out.resources:
                if missing := needs(route) - worker.held.get(type_url, {}).keys():
                    self.faults.append(f"{route.name} is sent before {missing} is in force at {worker.node_id}")

    def all_faults(self) -> list[str]:
        return self.faults + [
            fault for client in self.clients if isinstance(client, ModelEnvoy) for fault in client.faults
        ]


@pytest.fixture(scope="module", autouse=True)
def _sharing() -> Iterator[None]:
    """What clients have is shared with the snapshot however little it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "MIN_SHARED", 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Rejections are a part of these tests, by the thousand; what logs they are is for others to test."""
    logger = logging.getLogger("controlplane.xds")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    steps=st.lists(STEPS, max_size=40),
    first=worlds(clean=True),
    last=worlds(clean=True),
    protocol=st.sampled_from(["delta", "sotw"]),
)
def test_no_state_refers_to_what_is_missing_and_all_clients_converge(
    steps: list[tuple[str, Any]], first: dict[str, Snapshot], last: dict[str, Snapshot], protocol: Protocol
) -> None:
    scene = Scene(protocol, first)
    for action, value in steps:
        scene.step(action, value)
        assert scene.all_faults() == []
    scene.cache.publish(last)
    settle(*scene.clients)
    for _ in range(3):  # After a reconnection removals wait for a while.
        scene.clock.advance(GRACE_S)
        settle(*scene.clients)
    assert scene.all_faults() == []
    assert scene.cache.settled()
    for envoy in scene.clients[:2]:
        assert isinstance(envoy, ModelEnvoy)
        asked = envoy.wanted()
        for type_url in (SECRET, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE):
            whole, held = last[OWNER].of_type(type_url), envoy.held.get(type_url, {})
            wanted = {name: each for name, each in whole.items() if name in asked.get(type_url, whole)}
            assert {name: held[name].version for name in held} == {name: wanted[name].version for name in wanted}
    kept = scene.clients[2].held.get(AUTHZ_POLICY, {}).keys()
    assert kept >= last[AUTHZ_OWNER].of_type(AUTHZ_POLICY).keys()
    kept = scene.clients[3].held.get(RATE_LIMIT_CONFIG, {}).keys()
    assert kept >= last[RATE_LIMIT_OWNER].of_type(RATE_LIMIT_CONFIG).keys()


@settings(max_examples=100, deadline=None)
@given(first=worlds(clean=True), other=worlds(clean=True), protocol=st.sampled_from(["delta", "sotw"]))
def test_after_a_restart_nobody_is_sent_what_it_has(
    first: dict[str, Snapshot], other: dict[str, Snapshot], protocol: Protocol
) -> None:
    scene = Scene(protocol, first)
    sent: list[Outgoing] = []
    for client in scene.clients:
        client.on_sent = sent.append
    scene.start(first)
    settle(*scene.clients)
    assert [out for out in sent if out.resources] == []
    if protocol == "sotw":
        return
    held = {each.version for client in scene.clients for of_type in client.held.values() for each in of_type.values()}
    sent.clear()
    scene.start(other)
    settle(*scene.clients)
    # Endpoints go once more with a cluster that has changed, or it would not warm.
    again = [each.name for out in sent if out.type_url != ENDPOINT for each in out.resources if each.version in held]
    assert again == []
