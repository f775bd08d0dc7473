"""What Envoy rejects is kept out, everything else is delivered, whatever comes in whichever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.engine import Engine, Step
from controlplane.sources.changes import Changes
from controlplane.xds.resources import ROUTE, Resource
from tests.support import manifests as m
from tests.unit.quarantine.world import BASE, Mark, World, document, marks

pytestmark = pytest.mark.usefixtures("quiet")

ROUTES = range(6)
KINDS = ["good", "good", "bad"]


def key(number: int) -> ObjectKey:
    return ObjectKey(GATEWAY_GROUP, "HTTPRoute", "demo", f"r{number}")


def world(*first: Mark, **options: object) -> World:
    made = World(**options)  # type: ignore[arg-type]
    made.apply([*BASE, *map(document, first)])
    made.connect()
    made.settle()
    return made


Batch = tuple[list[tuple[int, str]], int]
BATCHES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from(ROUTES), st.sampled_from([*KINDS, "gone"])), max_size=6, unique_by=lambda e: e[0]
        ),
        st.integers(0, 60),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    batches=BATCHES,
    telling=st.booleans(),
    envoys=st.integers(1, 2),
    waits=st.booleans(),
)
def test_exactly_what_is_bad_is_kept_out_and_everybody_converges(
    first: list[str], batches: list[Batch], telling: bool, envoys: int, waits: bool
) -> None:
    newest: dict[int, Mark] = {number: (number, 0, kind) for number, kind in enumerate(first)}
    lives: dict[int, set[Mark]] = {number: {mark} for number, mark in newest.items()}
    scene = World(telling=telling, envoys=envoys)
    scene.apply([*BASE, *map(document, newest.values())])
    scene.connect()
    if waits:
        scene.settle()
    for version, (edits, moves) in enumerate(batches, 1):
        gone = [number for number, kind in edits if kind == "gone"]
        changed = {number: (number, version, kind) for number, kind in edits if kind != "gone"}
        for number in gone:
            newest.pop(number, None)
            lives.pop(number, None)
        newest |= changed
        for number, mark in changed.items():
            lives.setdefault(number, set()).add(mark)
        scene.apply([document(mark) for mark in changed.values()], [key(number) for number in gone])
        scene.move(moves)
    scene.settle()
    assert scene.quarantined == {f"r{number}" for number, mark in newest.items() if mark[2] == "bad"}
    for envoy in scene.clients:
        in_force = envoy.in_force
        assert {mark for mark in newest.values() if mark[2] == "good"} <= in_force
        for mark in in_force:
            assert mark[2] == "good"
            assert mark in lives[mark[0]], "what was deleted came back"
        served = scene.served().of_type(ROUTE)
        assert {n: r.version for n, r in envoy.held[ROUTE].items()} == {n: r.version for n, r in served.items()}
    assert all(scene.quarantine.is_confirmed(key(number)) for number in newest)


@settings(max_examples=100, deadline=None)
@given(bad=st.sets(st.sampled_from(range(20)), max_size=4), telling=st.booleans())
def test_what_was_good_is_in_force_all_the_while(bad: set[int], telling: bool) -> None:
    scene = world(*((number, 0, "good") for number in range(20)), telling=telling)
    envoy = scene.clients[0]
    envoy.history.clear()
    scene.apply([document((number, 1, "bad" if number in bad else "good")) for number in range(20)])
    scene.settle()
    for state in envoy.history:
        assert {number for number, _, _ in state} == set(range(20))
        assert all(kind == "good" for _, _, kind in state)
    assert envoy.in_force == {(number, int(number not in bad), "good") for number in range(20)}


def test_of_many_that_are_new_the_good_ones_are_served() -> None:
    scene = world((0, 0, "good"), (1, 0, "good"))
    scene.apply([document((number, 0, "bad" if number == 7 else "good")) for number in range(2, 12)])
    scene.settle()
    assert scene.quarantined == {"r7"}
    assert {number for number, _, _ in scene.clients[0].in_force} == set(range(12)) - {7}
    assert "rejected by Envoy: something is wrong; nothing is in force in its place" in scene.said("r7")


def test_one_that_is_named_is_found_at_once() -> None:
    scene = world((0, 0, "good"), telling=True)
    scene.apply([document((number, 0, "bad" if number == 7 else "good")) for number in range(1, 12)])
    scene.settle()
    assert scene.quarantined == {"r7"}
    assert scene.clients[0].rejections == 1


def test_the_last_good_version_stands_in_until_the_route_is_mended() -> None:
    scene = world((0, 0, "good"), (1, 0, "good"))
    scene.apply([document((1, 1, "bad"))])
    scene.settle()
    assert scene.clients[0].in_force == {(0, 0, "good"), (1, 0, "good")}
    assert "rejected by Envoy: something is wrong; the last good version stays in force" in scene.said("r1")
    scene.apply([document((1, 2, "good"))])
    scene.settle()
    assert scene.clients[0].in_force == {(0, 0, "good"), (1, 2, "good")}
    assert scene.quarantined == set()
    assert "rejected" not in scene.said("r1")


def test_a_bad_version_after_another_leaves_the_last_good_one_in_force() -> None:
    scene = world((0, 0, "good"), (1, 0, "good"))
    for version in range(1, 4):
        scene.apply([document((1, version, "bad"))])
        scene.settle()
        assert scene.clients[0].in_force == {(0, 0, "good"), (1, 0, "good")}
    assert scene.quarantined == {"r1"}


def test_a_route_that_is_deleted_leaves_quarantine() -> None:
    scene = world((0, 0, "good"), (1, 0, "bad"))
    assert scene.quarantined == {"r1"}
    scene.apply([], [key(1)])
    scene.settle()
    assert scene.quarantined == set()


def test_touching_an_object_has_it_tried_again() -> None:
    scene = world((0, 0, "good"), (1, 0, "bad"))
    before = scene.clients[0].rejections
    again = document((1, 0, "bad"))
    scene.apply([again])
    scene.settle()
    assert scene.clients[0].rejections == before
    scene.apply([{**again, "metadata": {**again["metadata"], "annotations": {"try": "again"}}}])
    scene.settle()
    assert scene.clients[0].rejections > before
    assert scene.quarantined == {"r1"}


@pytest.mark.parametrize("together", [True, False])
def test_of_two_that_are_bad_only_together_one_is_kept_out(together: bool) -> None:
    scene = world((0, 0, "good"))
    if together:
        scene.apply([document((1, 0, "one")), document((2, 0, "other")), document((3, 0, "good"))])
    else:
        scene.apply([document((1, 0, "one")), document((3, 0, "good"))])
        scene.settle()
        scene.apply([document((2, 0, "other"))])
    scene.settle()
    assert scene.quarantined == {"r2"}
    assert {number for number, _, _ in scene.clients[0].in_force} == {0, 1, 3}


def guard(name: str, route: str) -> dict[str, object]:
    target = {"group": GATEWAY_GROUP, "kind": "HTTPRoute", "name": route}
    by_key = {"credentialRefs": [{"name": "keys"}], "extractFrom": [{"headers": ["x-key"]}]}
    spec = {"targetRefs": [target], "apiKeyAuth": by_key}
    return m.manifest("dragoman.dev/v1alpha1", "SecurityPolicy", name, spec)


def test_a_key_that_is_taken_away_does_not_come_back_whatever_an_envoy_rejects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys(*ids: str) -> dict[str, object]:
        return m.manifest("v1", "Secret", "keys", None, stringData={each: f"value-of-{each}" for each in ids})

    scene = World()
    scene.apply([*BASE, document((0, 0, "good")), guard("by-key", "r0"), keys("kept", "gone")])
    scene.connect()
    scene.settle()
    assert b"value-of-gone" in scene.routes()
    monkeypatch.setattr("tests.unit.quarantine.world.refusal", lambda resource, telling: "no, thanks")
    scene.apply([keys("kept")])
    while True:
        assert b"value-of-gone" not in scene.routes()
        if scene.move(1) and not scene.wait():
            break
    assert scene.clients[0].rejections
    assert scene.quarantined == set()


KEYS = m.manifest("v1", "Secret", "keys", None, stringData={"someone": "value-of-a-key"})
LATE = [m.service("late"), m.endpoint_slice("late", "192.0.2.1")]


def with_a_route_that_leads_nowhere() -> World:
    scene = World()
    scene.apply([*BASE, KEYS, m.route("waits", [m.rule("/r9.v0.good", "late")])])
    scene.connect()
    scene.settle()
    return scene


def leads_on(scene: World, *, guarded: bool) -> bool:
    routes = scene.routes()
    return b"demo/Service/late" in routes and guarded == (b"value-of-a-key" in routes)


@pytest.mark.parametrize("service_comes", ["with its guard", "during the search"])
def test_a_route_is_not_open_while_its_guard_is_suspected(service_comes: str) -> None:
    scene = with_a_route_that_leads_nowhere()
    first, later = (LATE, []) if service_comes == "with its guard" else ([], LATE)
    bad = [document((number, 0, "bad")) for number in (1, 2)]
    scene.apply([*first, guard("a", "r1"), guard("b", "r2"), guard("z", "waits"), *bad])
    while not scene.move(1) or scene.wait():
        assert not leads_on(scene, guarded=False)
        if later and scene.quarantine.searching:
            scene.apply(later)
            later = []
    assert not later
    assert leads_on(scene, guarded=True)
    assert scene.quarantined == {"r1", "r2"}


def test_a_guard_that_comes_during_a_search_is_in_force_at_once() -> None:
    scene = with_a_route_that_leads_nowhere()
    scene.apply([document((number, 0, "bad" if number == 3 else "good")) for number in range(1, 6)])
    while not scene.quarantine.searching:
        scene.move(1)
    scene.apply([guard("z", "waits"), *LATE])
    assert scene.quarantine.searching
    assert leads_on(scene, guarded=True)
    scene.settle()
    assert leads_on(scene, guarded=True)
    assert scene.quarantined == {"r3"}


def test_what_a_route_has_envoy_say_does_not_keep_it_from_being_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(resource: Resource, *, telling: bool) -> str | None:
        return "no such thing: 'cannot bind'" if any(kind == "bad" for _, _, kind in marks(resource)) else None

    monkeypatch.setattr("tests.unit.quarantine.world.refusal", refusal)
    assert world((0, 0, "good"), (1, 0, "bad")).quarantined == {"r1"}


def test_a_cold_start_leaves_out_what_is_bad() -> None:
    scene = World()
    scene.connect()
    scene.apply([*BASE, *(document((number, 0, "bad" if number in (3, 11) else "good")) for number in range(30))])
    scene.settle()
    assert scene.quarantined == {"r3", "r11"}
    assert {number for number, _, _ in scene.clients[0].in_force} == set(range(30)) - {3, 11}


@pytest.mark.parametrize("telling", [True, False])
def test_envoys_that_outlived_a_control_plane_without_memory_lose_nothing_to_a_search(telling: bool) -> None:
    scene = world(*((number, 0, "good") for number in range(30)), telling=telling)
    envoy = scene.clients[0]
    scene.start()
    envoy.history.clear()
    scene.connect()
    scene.apply([*BASE, *(document((number, 1, "bad" if number == 3 else "good")) for number in range(30))])
    scene.settle()
    for state in envoy.history:
        assert {number for number, _, _ in state} >= set(range(30)) - {3}
    # Who is at fault is not known by itself: then they keep what they have.
    assert scene.quarantined == ({"r3"} if telling else set())
    assert {version for number, version, _ in envoy.in_force if number != 3} == {1 if telling else 0}


def test_an_envoy_that_answers_no_more_ends_the_search() -> None:
    scene = world((0, 0, "good"))
    scene.apply([document((number, 0, "bad" if number == 3 else "good")) for number in range(1, 6)])
    for _ in range(500):
        if scene.quarantine.searching:
            break
        scene.move(1)
    scene.clients[0].deaf = True
    scene.settle()
    assert not scene.quarantine.searching
    assert scene.quarantined
    scene.clients[0].deaf = False
    scene.settle()
    scene.clock.now += 100.0
    scene.quarantine.age()
    scene.settle()
    assert scene.quarantined == {"r3"}
    assert {number for number, _, _ in scene.clients[0].in_force} == {0, 1, 2, 4, 5}


def test_what_no_object_explains_is_left_as_it_is() -> None:
    scene = world((0, 0, "one"))
    resource = scene.served().of_type(ROUTE)["demo/edge/80"]
    assert marks(resource) == {(0, 0, "one")}
    scene.clients.append(type(scene.clients[0])("picky", scene.cache))
    picky = scene.clients[-1]
    picky.cache = scene.cache
    picky.connect()
    scene.settle()
    scene.apply([document((1, 0, "good"))])
    scene.settle()
    assert scene.quarantined == set()


def test_what_was_acknowledged_a_moment_ago_stands_in_though_not_everybody_has_settled() -> None:
    scene = world((0, 0, "good"), (1, 0, "good"), envoys=2)
    scene.clients[1].deaf = True
    scene.apply([document((1, 1, "good"))])
    scene.move(20)
    assert scene.clients[0].in_force == {(0, 0, "good"), (1, 1, "good")}
    scene.clients[0].history.clear()
    scene.apply([document((1, 2, "bad"))])
    scene.move(20)
    scene.clients[1].deaf = False
    scene.settle()
    assert scene.quarantined == {"r1"}
    for envoy in scene.clients:
        assert envoy.in_force == {(0, 0, "good"), (1, 1, "good")}
    assert (1, 0, "good") not in {mark for state in scene.clients[0].history for mark in state}


def test_a_search_lets_others_have_their_turn_between_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = world((0, 0, "good"))
    rejudge, trials = Engine.rejudge, 0

    def slowly(*given: Any, **named: Any) -> Step:
        nonlocal trials
        trials += 1
        scene.clock.now += 0.1
        return rejudge(*given, **named)

    monkeypatch.setattr(Engine, "rejudge", slowly)
    scene.apply([document((number, 0, "bad" if number == 5 else "good")) for number in range(1, 6)])
    while not scene.move(1) or scene.wait():
        assert trials <= 1, "several trials at a stretch"
        trials = 0
    assert scene.quarantined == {"r5"}


def test_what_was_deleted_between_two_processes_leaves_quarantine() -> None:
    scene = world((0, 0, "good"), (1, 0, "bad"), (2, 0, "bad"))
    assert scene.quarantined == {"r1", "r2"}
    remembered = dict(scene.quarantine.entries)
    scene.start()
    told: list[ObjectKey] = []
    scene.quarantine.remember(remembered, lambda objects: {})
    scene.quarantine.entries.observers.append(told.extend)
    scene.connect()
    scene.quarantine.stepped(scene.engine.apply(Changes((), ())), published=False)
    assert scene.quarantined == {"r1", "r2"}
    scene.apply([*BASE, document((0, 0, "good")), document((1, 0, "bad"))])
    scene.settle()
    assert scene.quarantined == {"r1"}
    assert key(2) in told


@pytest.mark.parametrize("apart", ["in time", "in age"])
def test_of_two_that_are_bad_only_together_the_newer_is_kept_out_whatever_its_name(apart: str) -> None:
    def created(mark: Mark, hour: int) -> dict[str, Any]:
        made = document(mark)
        made["metadata"]["creationTimestamp"] = f"2026-05-01T{hour:02}:00:00Z"
        return made

    scene = world((0, 0, "good"))
    old, new = created((4, 0, "one"), 1), created((1, 0, "other"), 2)
    if apart == "in time":
        scene.clients[0].deaf = True
        scene.apply([created((4, 0, "one"), 3)])
        scene.move(20)
        scene.apply([new])
        scene.clients[0].deaf = False
    else:
        scene.apply([new, old])
    scene.settle()
    assert scene.quarantined == {"r1"}
