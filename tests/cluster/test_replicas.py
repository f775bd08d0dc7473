"""Two replicas of the control plane: one leads and writes, both serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_scene import Scene, condition, control_planes, gateway, kill, manifest, ready, rule

DEPLOYMENT = manifest("Deployment", NAMESPACE, "dragoman-controlplane", None, api="apps/v1")
LEASE = manifest("Lease", NAMESPACE, "dragoman-controlplane", None, api="coordination.k8s.io/v1")


@pytest.fixture(scope="module", autouse=True)
def two(product: Cluster) -> Iterator[None]:
    """Two replicas for the tests of this file."""
    scale(product, 2)
    yield
    scale(product, 1)


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.api.patch(DEPLOYMENT, {"spec": {"replicas": replicas}})
    cluster.wait_rollout(NAMESPACE, "dragoman-controlplane")
    cluster.wait(lambda: len(control_planes(cluster)) == replicas, what=f"{replicas} replicas", within_s=60)


def leader(cluster: Cluster) -> str:
    return (cluster.api.read(LEASE) or {}).get("spec", {}).get("holderIdentity") or ""


async def test_another_leads_when_the_leader_is_gone_and_no_request_fails(scene: Scene) -> None:
    cluster = scene.cluster
    names = {pod["metadata"]["name"] for pod in control_planes(cluster)}
    assert len(names) == 2
    first = cluster.wait(lambda: leader(cluster), what="a leader")
    pod = next(name for name in names if name in first)
    async with scene.traffic() as traffic:
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
        # What is changed while nobody leads is served at once, and its status written as soon as somebody does.
        between = scene.route("between", rule("/between", "echo"))
        cluster.apply([between])
        await scene.answers("/between")
        second = cluster.wait(
            lambda: leader(cluster) not in ("", first) and leader(cluster), what="another leader", within_s=60
        )
        assert pod not in second
        scene.accepted(between, within_s=30)
        cluster.wait(lambda: sum(map(ready, control_planes(cluster))) == 2, what="two control planes", within_s=60)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_a_leader_that_is_told_to_stop_hands_over_at_once(scene: Scene) -> None:
    cluster = scene.cluster
    first = cluster.wait(lambda: leader(cluster), what="a leader")
    pod = next(each["metadata"]["name"] for each in control_planes(cluster) if each["metadata"]["name"] in first)
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--wait=false")
    cluster.wait(lambda: leader(cluster) not in ("", first), what="another leader", within_s=10)
    cluster.wait(lambda: sum(map(ready, control_planes(cluster))) == 2, what="two control planes", within_s=60)


async def test_a_gateway_is_programmed_whichever_replica_its_envoy_is_connected_to(scene: Scene) -> None:
    # An Envoy picks a replica anew whenever it starts; whoever leads must hear of it.
    for number in range(4):
        kill(scene.cluster, scene.envoys()[0])
        route = scene.route(f"r{number}", rule(f"/r{number}", "echo"))
        scene.cluster.apply([route])
        await scene.answers(f"/r{number}")
        scene.cluster.wait_for(
            gateway(scene.namespace), lambda found: condition(found["status"], "Programmed")["status"] == "True"
        )


async def test_an_envoy_whose_replica_is_killed_goes_on_with_the_other(scene: Scene) -> None:
    cluster = scene.cluster
    async with scene.traffic() as traffic:
        for number, pod in enumerate(control_planes(cluster)):
            kill(cluster, pod)
            cluster.apply([scene.route(f"r{number}", rule(f"/r{number}", "echo"))])
            await scene.answers(f"/r{number}")
            cluster.wait(lambda: sum(map(ready, control_planes(cluster))) == 2, what="two control planes", within_s=60)
        await traffic.stop()
    traffic.assert_none_failed()
