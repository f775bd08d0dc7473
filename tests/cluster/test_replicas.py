"""Two replicas of the control plane: one leads and writes, both serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_counts import StatusWrites
from tests.support.cluster_scene import STEADY, Scene, condition, control_planes, gateway, kill, manifest, ready, rule

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


def leading_pod(cluster: Cluster) -> tuple[str, str]:
    """Waits until one of the control planes that are there leads; returns who that is, and the name of its pod."""

    def found() -> tuple[str, str] | None:
        first = leader(cluster)
        names = [pod["metadata"]["name"] for pod in control_planes(cluster)]
        return next(((first, name) for name in names if name in first), None)

    first = cluster.wait(found, what="a leader")
    assert first is not None
    return first


async def test_another_leads_when_the_leader_is_gone_and_no_request_fails(scene: Scene) -> None:
    cluster = scene.cluster
    assert len(control_planes(cluster)) == 2
    first, pod = leading_pod(cluster)
    async with scene.traffic() as traffic:
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
        # What is changed while nobody leads is served at once, and its status written as soon as somebody does.
        between = scene.route("between", rule("/between", "echo"))
        cluster.apply([between])
        await scene.answers("/between")
        cluster.wait(lambda: leader(cluster) not in ("", first), what="another leader", within_s=60)
        assert pod not in leader(cluster)
        scene.accepted(between, within_s=30)
        cluster.wait(lambda: sum(map(ready, control_planes(cluster))) == 2, what="two control planes", within_s=60)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_a_leader_that_is_told_to_stop_hands_over_at_once(scene: Scene) -> None:
    cluster = scene.cluster
    first, pod = leading_pod(cluster)
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--wait=false")
    cluster.wait(lambda: leader(cluster) not in ("", first), what="another leader", within_s=10)
    cluster.wait(lambda: sum(map(ready, control_planes(cluster))) == 2, what="two control planes", within_s=60)


async def test_a_gateway_is_programmed_whichever_replica_its_envoy_is_connected_to(scene: Scene) -> None:
    # An Envoy picks a replica anew whenever it starts; whoever leads must hear of it.
    for number in range(4):
        kill(scene.cluster, scene.envoys()[0])
        route = scene.route(f"r{number}", rule(f"/r{number}", "echo"))
        scene.cluster.apply([route])
        # What is killed several times in a row is started again later and later.
        await scene.answers(f"/r{number}", within_s=60)
        scene.cluster.wait_for(
            gateway(scene.namespace), lambda found: condition(found["status"], "Programmed").get("status") == "True"
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


async def test_a_change_of_leader_writes_no_status_anew(scene: Scene) -> None:
    cluster = scene.cluster
    edge = gateway(scene.namespace)
    routes = [scene.route(f"r{number}", rule(f"/r{number}", "echo")) for number in range(5)]
    cluster.apply(routes)
    routes.append(scene.route("steady"))
    for each in routes:
        scene.accepted(each)
    programmed_of(cluster, edge, routes=6)
    since, versions = programmed_since(cluster, edge), [version_of(cluster, each) for each in routes]
    for number, how in enumerate(("killed", "told to stop")):
        before = StatusWrites.now(cluster.api)
        first, pod = leading_pod(cluster)
        force = ["--grace-period=0", "--force"] if how == "killed" else ["--wait=false"]
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod, *force)
        cluster.wait(
            lambda first=first: leader(cluster) not in ("", first), what=f"another leader, one {how}", within_s=60
        )
        # The new leader has looked at everything once it has told of this, on the route and on its Gateway.
        cluster.apply([scene.route(f"later-{number}", rule(f"/later-{number}", "echo"))])
        scene.accepted(scene.route(f"later-{number}"))
        programmed_of(cluster, edge, routes=7 + number)
        assert [version_of(cluster, each) for each in routes] == versions, how
        after = StatusWrites.now(cluster.api)
        assert after.since(before, "httproutes") == 1, how
        assert after.since(before, "gateways") == 1, how
        cluster.wait(lambda: sum(map(ready, control_planes(cluster))) == 2, what="two control planes", within_s=60)
    assert programmed_since(cluster, edge) == since


def version_of(cluster: Cluster, document: dict[str, object]) -> str:
    found = cluster.api.read(document)
    assert found is not None
    return found["metadata"]["resourceVersion"]


async def test_no_request_fails_while_a_build_with_other_output_takes_over(scene: Scene) -> None:
    cluster = scene.cluster
    path = {"name": "PYTHONPATH", "value": str(Path(__file__).parent / "another_build")}
    async with scene.traffic(STEADY) as traffic:
        for number, extra in enumerate(([path], [])):
            cluster.install({"controlPlane": {"replicas": 2, "extraEnv": extra}}, within_s=180)
            cluster.wait_rollout(NAMESPACE, "dragoman-controlplane")
            after = scene.route(f"after-{number}", rule(f"/after-{number}", "echo"))
            cluster.apply([after])
            await scene.answers(f"/after-{number}")
            scene.accepted(after)
            await traffic.goes_on(400)
        await traffic.stop()
    traffic.assert_none_failed()


def programmed_of(cluster: Cluster, edge: dict[str, object], *, routes: int) -> None:
    """Waits until a Gateway is programmed, and says that it has so many routes."""

    def said(found: dict[str, dict[str, list[dict[str, int]]]]) -> bool:
        attached = [listener["attachedRoutes"] for listener in found["status"]["listeners"]]
        return condition(found["status"], "Programmed").get("status") == "True" and attached == [routes]

    cluster.wait_for(edge, said, what=f"a programmed Gateway with {routes} routes")


def programmed_since(cluster: Cluster, edge: dict[str, object]) -> str:
    found = cluster.api.read(edge)
    assert found is not None
    return condition(found["status"], "Programmed")["lastTransitionTime"]
