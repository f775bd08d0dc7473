"""A route that hangs on a Gateway of ours and on one of another controller: each writes its own entry alone."""

from __future__ import annotations

from typing import Any

from tests.support.cluster_scene import Scene, condition, gateway, manifest, parent, rule

OTHER = "example.com/other-controller"


async def test_what_another_controller_says_of_a_route_is_left_alone(scene: Scene) -> None:
    cluster = scene.cluster
    cluster.apply([other_gateway(scene)])
    shared = scene.route("shared", rule("/shared", "echo"))
    shared["spec"]["parentRefs"].append({"name": "theirs"})
    cluster.apply([shared])
    found = scene.accepted(shared)
    assert [entry["controllerName"] for entry in parents(found)] == ["dragoman.dev/gateway-controller"]

    said = {
        "parentRef": {"name": "theirs", "group": "gateway.networking.k8s.io", "kind": "Gateway"},
        "controllerName": OTHER,
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Accepted",
                "message": "theirs",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    }
    cluster.api.patch(shared, {"status": {"parents": [said, *parents(found)]}}, subresource="status")
    shared["spec"]["rules"] = [rule("/changed", "echo")]
    cluster.apply([shared])
    await scene.answers("/changed")
    found = scene.accepted(shared)
    assert [entry for entry in parents(found) if entry["controllerName"] == OTHER] == [said]

    # Detached from ours, it keeps theirs and loses ours.
    cluster.api.patch(shared, {"spec": {"parentRefs": [{"name": "theirs"}]}})
    found = cluster.wait_for(shared, lambda found: parent(found) is None, what="our entry to go")
    assert parents(found) == [said]
    await scene.answers("/changed", 404)


async def test_a_gateway_of_another_class_is_not_touched(scene: Scene) -> None:
    cluster = scene.cluster
    theirs = other_gateway(scene)
    cluster.apply([theirs])
    cluster.apply([scene.route("marker", rule("/marker", "echo"))])
    await scene.answers("/marker")
    found = cluster.api.get(cluster.api.path(theirs))
    assert all(each["status"] == "Unknown" for each in found["status"]["conditions"])
    assert condition(found["status"], "Programmed").get("reason") == "Pending"


def other_gateway(scene: Scene) -> dict[str, Any]:
    class_ = manifest("GatewayClass", "", "other", {"controllerName": OTHER})
    scene.cluster.apply([class_])
    made = gateway(scene.namespace, name="theirs")
    made["spec"]["gatewayClassName"] = "other"
    return made


def parents(found: Any) -> list[Any]:
    return found["status"]["parents"]
