"""A change is followed to the last client: on the real xDS cache, with clients that the test plays."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.api.meta import ObjectKey
from controlplane.engine import Step
from controlplane.tracing import Tracer
from controlplane.tracing.change import Delivery, Stages
from controlplane.tracing.owner import MOST_OPEN
from controlplane.xds.cache import Session, SnapshotCache
from controlplane.xds.order import Timing
from controlplane.xds.requests import Request
from controlplane.xds.resources import CLUSTER, ROUTE, Resource, Snapshot

_OWNER = "demo/edge"


def _request(type_url: str, *, nonce: str = "", error: str | None = None, subscribe: tuple[str, ...] = ()) -> Request:
    return Request(type_url=type_url, nonce=nonce, error=error, subscribe=subscribe)


def _snapshot(**bodies: str) -> Snapshot:
    made = {name: Resource.of(ROUTE, name, body.encode()) for name, body in bodies.items()}
    return Snapshot({ROUTE: made})


@dataclass
class _Done:
    owner: str
    state: str
    seconds: float


@dataclass
class _World:
    """A cache with a tracer, a clock that the test moves, and clients that answer when they are told to."""

    now: float = 1000.0
    done: list[_Done] = field(default_factory=list[_Done])
    stages: list[Stages] = field(default_factory=list[Stages])

    def __post_init__(self) -> None:
        self.tracer = Tracer(
            on_done=self._done,
            on_stages=lambda stages, objects: self.stages.append(stages),
            clock=lambda: self.now,
            calendar=lambda: 1_700_000_000.0 + self.now,
        )
        self.cache = SnapshotCache(deliveries=self.tracer, clock=lambda: self.now, timing=Timing())
        self.cache.complete()

    def client(self, node_id: str, owner: str = _OWNER) -> Session:
        session = self.cache.attach(owner, node_id, "delta", lambda: None)
        self.cache.handle(session, _request(ROUTE))
        self.answer(session)
        return session

    def publish(self, name: str, *, seen_ago_s: float = 0.0, owner: str = _OWNER, **bodies: str) -> None:
        key = ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "demo", name)
        step = Step({}, {}, (key,), (), 0.004, 0.001)
        with self.tracer.step(step, seen_at=self.now - 0.004 - seen_ago_s):
            self.cache.publish({owner: _snapshot(**bodies)})

    def push(self, session: Session) -> str:
        out = self.cache.next_response(session)
        assert out is not None
        return out.nonce

    def answer(self, session: Session, *, error: str | None = None) -> None:
        while (out := self.cache.next_response(session)) is not None:
            self.cache.handle(session, _request(out.type_url, nonce=out.nonce, error=error))
            error = None

    def newest(self) -> Mapping[str, Any]:
        return self.tracer.changes()[-1]

    def _done(self, delivery: Delivery, seconds: float) -> None:
        self.done.append(_Done(delivery.owner, delivery.state, round(seconds, 6)))


def test_a_change_has_converged_when_the_last_client_has_acknowledged_it() -> None:
    world = _World()
    first, last = world.client("one"), world.client("two")
    world.publish("shop", seen_ago_s=0.01, a="x")
    world.now += 0.1
    world.answer(first)
    assert world.done == []
    assert world.newest()["state"] == "under way"
    world.now += 0.2
    world.answer(last)
    assert world.done == [_Done(_OWNER, "settled", 0.314)]
    assert world.newest()["settled_ms"] == 314.0
    assert world.newest()["owners"][0]["last_client"] == "two"


def test_the_stages_of_a_change_add_up_to_when_it_was_published() -> None:
    world = _World()
    world.client("one")
    world.publish("shop", seen_ago_s=0.02, a="x")
    found = world.newest()
    assert found["stages_ms"] == {"wait": 20.0, "load": 1.0, "compile": 3.0, "publish": 0.0}
    assert found["owners"][0]["published_ms"] == 24.0
    (stages,) = world.stages
    assert round(stages.wait_s + stages.load_s + stages.compile_s + stages.publish_s, 6) == 0.024


def test_what_was_sent_is_told_by_type_with_its_size_and_who_answered_when() -> None:
    world = _World()
    session = world.client("one")
    world.publish("shop", a="x" * 10, b="y" * 20)
    world.now += 0.005
    nonce = world.push(session)
    world.now += 0.010
    world.cache.handle(session, _request(ROUTE, nonce=nonce))
    (sent,) = world.newest()["owners"][0]["types"]
    assert (sent["type"], sent["names"], sent["bytes"], sent["acks"]) == ("RouteConfiguration", ["a", "b"], 30, 1)
    assert sent["clients"] == {"one": [9.0, 19.0]}


def test_an_owner_without_clients_is_not_counted() -> None:
    world = _World()
    world.publish("shop", a="x")
    assert world.done == []
    assert world.newest()["state"] == "nobody"


def test_a_client_that_goes_away_is_not_waited_for() -> None:
    world = _World()
    stays, goes = world.client("stays"), world.client("goes")
    world.publish("shop", a="x")
    world.answer(stays)
    world.cache.detach(goes)
    assert [each.state for each in world.done] == ["settled"]
    assert world.newest()["owners"][0]["left"] == 1


def test_a_change_whose_only_client_goes_away_has_reached_nobody() -> None:
    world = _World()
    goes = world.client("goes")
    world.publish("shop", a="x")
    world.cache.detach(goes)
    assert world.newest()["state"] == "nobody"


def test_a_rejection_is_told_apart_with_its_words() -> None:
    world = _World()
    session = world.client("one")
    world.publish("shop", a="x")
    world.answer(session, error="a: no such thing")
    assert [each.state for each in world.done] == ["rejected"]
    (found,) = world.newest()["owners"][0]["rejections"]
    assert found == {"client": "one", "type": "RouteConfiguration", "names": ["a"], "message": "a: no such thing"}


def test_a_change_after_a_rejected_one_converges_again() -> None:
    world = _World()
    session = world.client("one")
    world.publish("shop", a="x")
    world.answer(session, error="a: no such thing")
    world.publish("shop", a="y")
    world.answer(session)
    assert [each.state for each in world.done] == ["rejected", "settled"]


def test_changes_that_follow_one_another_while_a_client_is_busy_each_converge_when_it_has_them() -> None:
    world = _World()
    session = world.client("one")
    world.publish("first", a="1")
    nonce = world.push(session)
    world.publish("second", a="2")
    world.now += 1.0
    world.cache.handle(session, _request(ROUTE, nonce=nonce))
    assert [(each.state, each.seconds) for each in world.done] == [("settled", 1.004)]
    world.now += 1.0
    world.answer(session)
    assert [(each.state, each.seconds) for each in world.done[1:]] == [("settled", 2.004)]


def test_one_push_answers_for_all_the_changes_that_it_holds() -> None:
    world = _World()
    session = world.client("one")
    for number in range(5):
        world.publish(f"route-{number}", a=str(number))
    world.answer(session)
    assert [each.state for each in world.done] == ["settled"] * 5
    assert world.tracer.open == world.tracer.behind == 0


def test_a_change_that_no_client_asked_for_waits_for_nobody() -> None:
    world = _World()
    world.client("one")
    with world.tracer.step(Step({}, {}, (), (), 0.0)):
        world.cache.publish({_OWNER: Snapshot({CLUSTER: {"c": Resource.of(CLUSTER, "c", b"c")}})})
    assert world.newest()["state"] == "nobody"


def test_who_is_behind_is_told_while_a_change_is_under_way() -> None:
    world = _World()
    session = world.client("slow")
    world.publish("shop", a="x")
    world.push(session)
    world.now += 2.0
    (found,) = world.newest()["owners"]
    assert found["waiting"] == [{"client": "slow", "unanswered_ms": {"RouteConfiguration": 2000.0}}]
    assert (world.tracer.open, world.tracer.behind) == (1, 1)


def test_a_client_that_never_answers_holds_a_bounded_number_of_changes() -> None:
    world = _World()
    world.client("hangs")
    for number in range(MOST_OPEN + 50):
        world.publish(f"route-{number}", a=str(number))
    assert world.tracer.open == MOST_OPEN
    assert [each.state for each in world.done] == ["overtaken"] * 50


def test_the_last_changes_are_kept_and_found_by_object_and_number() -> None:
    world = _World()
    for number in range(300):
        world.publish(f"route-{number}", a=str(number))
    found = world.tracer.changes()
    assert len(found) == 256
    assert found[-1]["objects"] == ["HTTPRoute demo/route-299"]
    assert [each["id"] for each in world.tracer.changes(words="Route-299")] == [found[-1]["id"]]
    assert len(world.tracer.changes(last=3)) == 3
    assert [each["id"] for each in world.tracer.changes(since=found[-3]["id"])] == [each["id"] for each in found[-2:]]


def test_steps_that_change_nothing_leave_no_trace() -> None:
    world = _World()
    with world.tracer.step(Step({}, {}, (), (), 0.0)):
        pass
    assert world.tracer.changes() == []


def test_owners_whose_clients_have_gone_are_forgotten() -> None:
    world = _World()
    for number in range(100):
        owner = f"demo/gateway-{number}"
        session = world.client("one", owner)
        world.publish("shop", owner=owner, a="x")
        world.cache.detach(session)
    assert len(world.tracer._owners) == 0  # pyright: ignore[reportPrivateUsage]


def test_following_a_step_costs_next_to_nothing() -> None:
    world = _World()
    session = world.client("one")
    without = SnapshotCache(clock=lambda: world.now)
    without.complete()
    other = without.attach(_OWNER, "one", "delta", lambda: None)
    without.handle(other, _request(ROUTE))

    def answer(cache: SnapshotCache, session: Session) -> None:
        while (out := cache.next_response(session)) is not None:
            cache.handle(session, _request(out.type_url, nonce=out.nonce))

    def traced(number: int) -> None:
        world.publish("shop", a=str(number))
        answer(world.cache, session)

    def untraced(number: int) -> None:
        without.publish({_OWNER: _snapshot(a=str(number))})
        answer(without, other)

    def cost(act: Any) -> float:
        start = time.process_time()
        for number in range(300):
            act(number)
        return (time.process_time() - start) / 300

    answer(without, other)
    found = min(cost(traced) for _ in range(5)) - min(cost(untraced) for _ in range(5))
    assert found < 100e-6
