"""A thousand routes at once: each is served, and its status written once."""

from __future__ import annotations

import time

from tests.support.cluster_counts import StatusWrites
from tests.support.cluster_scene import Scene, condition, control_planes, gateway, kill, parent, ready, rule

COUNT = 1000


async def test_a_thousand_routes_cost_one_status_write_each(scene: Scene) -> None:
    cluster, api = scene.cluster, scene.cluster.api
    routes = [scene.route(f"r{number}", rule(f"/r{number}/", "echo")) for number in range(COUNT)]
    scene.accepted(scene.route("steady"))
    before = StatusWrites.now(api)
    began = time.monotonic()
    api.create_all(routes)
    cluster.wait(lambda: accepted(scene) == COUNT + 1, what="every route to be accepted", within_s=120, every_s=0.5)
    print(f"{COUNT} routes created and accepted in {time.monotonic() - began:.1f} s")
    for number in (0, COUNT // 2, COUNT - 1):
        await scene.answers(f"/r{number}/")
    cluster.wait_for(gateway(scene.namespace), lambda found: attached(found) == COUNT + 1, what="attachedRoutes")
    created = StatusWrites.now(api)
    assert created.since(before, "httproutes") <= COUNT
    assert created.since(before, "gateways") <= COUNT // 4, "changes of attachedRoutes are not brought together"

    # A change of metadata alone is none of the spec, and a restart changes nothing.
    for route in routes[:20]:
        api.patch(route, {"metadata": {"annotations": {"note": "x"}}})
    for pod in control_planes(cluster):
        kill(cluster, pod)
    cluster.wait(lambda: all(map(ready, control_planes(cluster))), what="the control planes", within_s=60)
    last = scene.route("last", rule("/last", "echo"))
    cluster.apply([last])
    scene.accepted(last, within_s=60)
    assert StatusWrites.now(api).since(created, "httproutes") <= 1

    changed = StatusWrites.now(api)
    for route in routes[:50]:
        api.patch(route, {"spec": {"rules": [rule("/changed/", "echo")]}})
        scene.accepted(route)
    assert StatusWrites.now(api).since(changed, "httproutes") <= 50
    api.delete_all(routes)
    await scene.answers("/r0/", 404)
    cluster.wait_for(gateway(scene.namespace), lambda found: attached(found) == 2, what="attachedRoutes")


def accepted(scene: Scene) -> int:
    path = scene.cluster.api.path_of("gateway.networking.k8s.io/v1", "HTTPRoute", scene.namespace)
    found = scene.cluster.api.get(path)["items"]
    return sum(condition(parent(route), "Accepted").get("status") == "True" for route in found)


def attached(found: dict[str, object]) -> int:
    status = found["status"]
    assert isinstance(status, dict)
    return status["listeners"][0]["attachedRoutes"]
