"""While it is searched for what Envoy rejects, nothing is open that is to be guarded, and nothing is closed for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.api.meta import GATEWAY_GROUP
from controlplane.translate.dump import to_dict
from controlplane.xds.resources import ROUTE
from tests.support import manifests as m
from tests.unit.quarantine.world import BASE, World, document

pytestmark = pytest.mark.usefixtures("quiet")

MARK = "who-may-call"


def guard(name: str, target: str, *, kind: str = "HTTPRoute") -> dict[str, Any]:
    rule = {"action": "Allow", "principal": {"headers": [{"name": "x-who", "values": [f"{MARK}-{name}"]}]}}
    ref = {"group": GATEWAY_GROUP, "kind": kind, "name": target}
    spec = {"targetRefs": [ref], "authorization": {"defaultAction": "Deny", "rules": [rule]}}
    return m.manifest("dragoman.dev/v1alpha1", "SecurityPolicy", name, spec)


def texts(world: World) -> list[str]:
    """What the Envoy holds of routes, in words."""
    return [str(to_dict(ROUTE, each.body)) for each in world.clients[0].held.get(ROUTE, {}).values()]


def settle(world: World) -> Iterator[str]:
    """Lets one thing happen after the other; yields what the Envoy has after each."""
    for _ in range(5000):
        idle = world.move(1)
        yield from texts(world)
        if idle and not world.wait():
            return
    raise AssertionError("the world never comes to rest")


@pytest.mark.parametrize("kind", ["HTTPRoute", "Gateway"])
def test_a_route_that_is_new_with_its_guard_is_never_open(kind: str) -> None:
    world = World()
    world.apply([*BASE, document((0, 0, "good"))])
    world.connect()
    world.settle()
    new = [document((2, 0, "good")), guard("new", "r2" if kind == "HTTPRoute" else "edge", kind=kind)]
    world.apply([*new, *(document((number, 0, "bad" if number == 5 else "good")) for number in range(3, 9))])
    for text in settle(world):
        assert "/r2.v0.good" not in text or MARK in text or "directResponse" in text
    assert world.quarantined == {"r5"}
    assert MARK in texts(world)[0]
    assert "directResponse" not in texts(world)[0]


def test_a_route_that_is_given_a_guard_answers_all_the_while() -> None:
    world = World()
    world.apply([*BASE, document((0, 0, "good"))])
    world.connect()
    world.settle()
    world.apply(
        [guard("new", "r0"), *(document((number, 0, "bad" if number == 5 else "good")) for number in range(3, 9))]
    )
    for text in settle(world):
        assert "directResponse" not in text
    assert world.quarantined == {"r5"}
    assert MARK in texts(world)[0]


def test_a_guard_that_nobody_has_found_guilty_does_not_go_back_to_its_older_version() -> None:
    world = World()
    world.apply([*BASE, document((0, 0, "good")), guard("of-r0", "r0")])
    world.connect()
    world.settle()
    newer = guard("of-r0", "r0")
    newer["spec"]["authorization"]["rules"] = []
    world.apply([newer, *(document((number, 0, "bad" if number == 5 else "good")) for number in range(3, 9))])
    while not world.quarantine.searching:
        world.move(1)
    world.clients[0].deaf = True
    world.settle()
    assert not world.quarantine.searching
    assert world.quarantined
    assert "of-r0" not in world.quarantined
    assert MARK.encode() not in world.routes()
    world.clients[0].deaf = False
    world.settle()
    world.clock.now += 100.0
    world.quarantine.age()
    world.settle()
    assert world.quarantined == {"r5"}
    assert MARK not in texts(world)[0]
