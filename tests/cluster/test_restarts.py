"""No request fails while the control plane or the Envoys themselves are killed, restarted and rolled over."""

from __future__ import annotations

from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_scene import STEADY, Scene, control_planes, kill, ready, rule
from tests.support.traffic import Target


async def test_while_every_control_plane_is_killed(scene: Scene) -> None:
    cluster = scene.cluster
    replicas = len(control_planes(cluster))
    async with scene.traffic() as traffic:
        for number in range(2):
            for pod in control_planes(cluster):
                kill(cluster, pod)
            await traffic.goes_on(200)
            route = scene.route(f"after-{number}", rule(f"/after-{number}", "echo"))
            cluster.apply([route])
            await scene.answers(f"/after-{number}", within_s=60)
            scene.accepted(route, within_s=60)
            cluster.wait(lambda: serving(cluster) == replicas, what="the control planes", within_s=60)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_while_the_control_plane_is_rolled_over(scene: Scene) -> None:
    async with scene.traffic() as traffic:
        scene.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/dragoman-controlplane")
        scene.cluster.wait_rollout(NAMESPACE, "dragoman-controlplane", within_s=120)
        scene.cluster.apply([scene.route("after", rule("/after", "echo"))])
        await scene.answers("/after")
        await traffic.stop()
    traffic.assert_none_failed()


async def test_while_the_envoys_are_rolled_over(scene: Scene) -> None:
    before = {pod["metadata"]["name"] for pod in scene.envoys()}
    async with scene.traffic(connections=8) as traffic:
        scene.cluster.kubectl("-n", scene.namespace, "rollout", "restart", f"deployment/{scene.deployment}")
        scene.cluster.wait_rollout(scene.namespace, scene.deployment, within_s=120)
        scene.cluster.wait(lambda: gone(scene, before), what="the end of the old Envoys", within_s=120)
        await traffic.goes_on(200)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_while_listeners_come_and_go(scene: Scene) -> None:
    more = {"name": "more", "port": 8080, "protocol": "HTTP"}
    gateway = scene.cluster.api.path_of("gateway.networking.k8s.io/v1", "Gateway", scene.namespace, "edge")
    first = scene.cluster.api.get(gateway)["spec"]["listeners"]
    async with scene.traffic(STEADY, Target("/steady", host="other.example.com")) as traffic:
        for _ in range(3):
            merge(scene.cluster, gateway, {"spec": {"listeners": [*first, more]}})
            await scene.answers("/steady", port=8080)
            merge(scene.cluster, gateway, {"spec": {"listeners": first}})
            await traffic.goes_on(100)
        await traffic.stop()
    traffic.assert_none_failed()


def merge(cluster: Cluster, path: str, change: object) -> None:
    cluster.api.request("PATCH", path, change, content_type="application/merge-patch+json")


def serving(cluster: Cluster) -> int:
    return sum(ready(pod) for pod in control_planes(cluster))


def gone(scene: Scene, names: set[str]) -> bool:
    every = scene.cluster.api.get(f"/api/v1/namespaces/{scene.namespace}/pods")["items"]
    return names.isdisjoint(pod["metadata"]["name"] for pod in every)
