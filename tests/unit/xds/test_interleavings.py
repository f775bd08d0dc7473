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
from controlplane.xds.identity import AUTHZ_OWNER
from controlplane.xds.order import Timing
from controlplane.xds.resources import AUTHZ_POLICY, CLUSTER, ENDPOINT, LISTENER, ROUTE, Snapshot
from controlplane.xds.subscription import Outgoing
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.model import Clock, ModelClient, ModelEnvoy, ModelWorker, gateway, needs, settle

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


@st.composite
def worlds(draw: st.DrawFn, *, clean: bool = False) -> dict[str, Snapshot]:
    """What is published: routes that name clusters that are there, and policies that are published with them."""
    texts = ["1", "2"] if clean else ["1", "2", "bad"]
    clusters = draw(st.dictionaries(st.sampled_from(CLUSTERS), st.sampled_from(texts)))
    policies = draw(st.sets(st.sampled_from(POLICIES)))
    some = st.lists(st.sampled_from(sorted(clusters)), unique=True) if clusters else st.just(list[str]())
    routes = {name: tuple(draw(some)) for name in draw(st.sets(st.sampled_from(ROUTES)))}
    return {
        OWNER: gateway(clusters, routes, policies, draw(st.sampled_from(["", "" if clean else "bad"]))),
        AUTHZ_OWNER: snapshot(*(plain(AUTHZ_POLICY, name) for name in policies)),
    }


WHO = st.integers(0, 2)
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
    st.tuples(st.just("settle"), st.none()),
    st.tuples(st.just("wait"), st.none()),
    st.tuples(st.just("reconnect"), WHO),
    st.tuples(st.just("restart"), worlds()),
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
        ]
        self.start(self.world)
        settle(*self.clients)

    def start(self, world: dict[str, Snapshot]) -> None:
        self.cache = SnapshotCache(timing=PATIENT, clock=self.clock)
        self.cache.publish(world)
        for client in self.clients:
            client.connect(self.cache)

    def step(self, action: str, value: Any) -> None:
        match action:
            case "publish":
                self.cache.publish(value)
            case "restart" | "reconnect" if self.protocol == "sotw":
                pass  # A client of this protocol doesn't say what it has: what is gone meanwhile goes at once.
            case "restart":
                self.start(value)
            case "reconnect":
                self.clients[value].disconnect()
                self.clients[value].connect(self.cache)
            case "settle":
                settle(*self.clients)
            case "wait":
                self.clock.advance(0.01)
            case "serve":
                self.clients[value].wire.serve()
            case "receive":
                self.clients[value].receive()
            case _:
                self.clients[value].wire.upload()

    def judge(self, out: Outgoing) -> None:
        """Notes routes that are sent while the worker, being subscribed, lacks the policies that they name."""
        worker = self.clients[2]
        if out.type_url != ROUTE or not worker.wire.session.client.summary().types:
            return
        for route in out.resources:
            if missing := needs(route) - worker.held.get(AUTHZ_POLICY, {}).keys():
                self.faults.append(f"{route.name} is sent before {missing} is in force")

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


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
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
        for type_url in (CLUSTER, ENDPOINT, LISTENER, ROUTE):
            wanted = last[OWNER].of_type(type_url)
            held = envoy.held.get(type_url, {})
            assert {name: held[name].version for name in held} == {name: wanted[name].version for name in wanted}
    kept = scene.clients[2].held.get(AUTHZ_POLICY, {}).keys()
    assert kept >= last[AUTHZ_OWNER].of_type(AUTHZ_POLICY).keys()
