"""A search among what is behind one Gateway holds nothing back of others, and nothing comes to them in halves."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import GATEWAY_GROUP
from controlplane.translate.dump import to_dict
from controlplane.xds.resources import ROUTE
from tests.support import manifests as m
from tests.unit.quarantine.world import BASE, World, document

pytestmark = pytest.mark.usefixtures("quiet")

MARK = "who-may-call"


def elsewhere(name: str, path: str, *backends: str) -> dict[str, Any]:
    return m.route(name, [m.to_backend(path, *(backends or ("echo",)))], parent="other")


def guard(name: str, *targets: str, who: str = "someone", **spec: Any) -> dict[str, Any]:
    rule = {"action": "Allow", "principal": {"headers": [{"name": "x-who", "values": [f"{MARK}-{who}"]}]}}
    refs = [{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "name": each} for each in targets]
    spec = {"targetRefs": refs, **spec, "authorization": {"defaultAction": "Deny", "rules": [rule]}}
    return m.manifest("dragoman.dev/v1alpha1", "SecurityPolicy", name, spec)


def searching(*first: dict[str, Any]) -> World:
    """Returns a world with two Gateways, where it is searched among the routes of one."""
    world = World()
    world.apply([*BASE, m.gateway("other"), document((0, 0, "good")), *first])
    world.connect()
    world.settle()
    world.apply([document((number, 0, "bad" if number == 3 else "good")) for number in range(1, 6)])
    while not world.quarantine.searching:
        world.move(1)
    return world


def others(world: World) -> str:
    """What the Envoys of the other Gateway are sent of routes, in words."""
    found = world.cache.published("demo/other")
    assert found is not None
    return " ".join(str(to_dict(ROUTE, each.body)) for each in found.of_type(ROUTE).values())


def finish(world: World) -> str:
    world.settle()
    assert world.quarantined == {"r3"}
    return others(world)


def test_a_route_of_another_gateway_does_not_wait() -> None:
    world = searching(elsewhere("far", "/before"))
    world.apply([elsewhere("far", "/after"), document((7, 0, "good"))])
    assert world.quarantine.searching
    assert "/after" in others(world)
    assert b"/r7.v0.good" not in world.routes()
    finish(world)
    assert b"/r7.v0.good" in world.routes()


def test_a_guard_of_another_gateway_comes_with_its_route() -> None:
    world = searching(elsewhere("far", "/before"), guard("g", "far", who="old"))
    world.apply([elsewhere("far", "/after"), guard("g", "far", who="new")])
    assert world.quarantine.searching
    assert "/after" in others(world)
    assert f"{MARK}-new" in others(world)
    finish(world)


@pytest.mark.parametrize("how", ["named", "chosen"])
def test_a_route_waits_for_a_guard_that_waits(how: str) -> None:
    world = searching(elsewhere("far", "/before"), guard("g", "r0", who="old"))
    both = guard("g", "r0", "far2", who="new")
    if how == "chosen":
        both = guard("g", who="new", targetSelectors=[{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "matchLabels": {}}])
        del both["spec"]["targetRefs"]
    world.apply([elsewhere("far2", "/after"), both])
    assert world.quarantine.searching
    assert "/after" not in others(world)
    for _ in range(5000):
        idle = world.move(1)
        assert "/after" not in others(world) or f"{MARK}-new" in others(world)
        if idle and not world.wait():
            break
    assert "/after" in finish(world)


def test_a_route_waits_for_a_backend_that_waits() -> None:
    world = searching(elsewhere("far", "/before"))
    world.apply([elsewhere("far", "/after", "fresh"), m.backend("fresh", 8081)])
    assert world.quarantine.searching
    assert "/before" in others(world)
    assert "/after" in finish(world)


def test_a_route_that_moves_to_the_gateway_that_is_asked_waits() -> None:
    world = searching(elsewhere("far", "/before"))
    world.apply([m.route("far", [m.to_backend("/after", "echo")])])
    assert world.quarantine.searching
    assert "/before" in others(world)
    assert b"/after" not in world.routes()
    assert "/before" not in finish(world)
    assert b"/after" in world.routes()


def test_a_guard_of_a_route_of_the_gateway_that_is_asked_waits() -> None:
    world = searching(guard("g", "r0", who="old"))
    world.apply([guard("g", "r0", who="new")])
    assert world.quarantine.searching
    assert f"{MARK}-new".encode() not in world.routes()
    finish(world)
    assert f"{MARK}-new".encode() in world.routes()
