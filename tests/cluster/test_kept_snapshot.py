"""The API server is away while a control plane starts again: it serves what it served, and lets in who may come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.cluster_faults import Faults
from tests.support.cluster_scene import Scene, control_planes, kill, pid_of, pods, rule
from tests.support.waiting import until

Pod = Mapping[str, Any]


async def keeps(scene: Scene, planes: Sequence[Pod]) -> None:
    """Waits until each control plane has on disk what the Gateway's Envoys have: the backend is what came last."""
    backend = pods(scene.cluster, scene.namespace, "app=echo")[0]["status"]["podIP"]

    def kept(plane: Pod) -> bool:
        found = Path("/proc", str(pid_of(plane)), "root", "var", "lib", "dragoman").glob("kept.db*")
        content = b"".join(path.read_bytes() for path in found)
        return f"{scene.namespace}/edge".encode() in content and backend.encode() in content

    await until(lambda: all(map(kept, planes)), what="the Gateway to be kept", within_s=60)


async def says(cluster: Cluster, plane: Pod, words: str, *, within_s: float = 60.0) -> str:
    """Waits until a control plane is ready and says this of its config."""

    async def said() -> str | None:
        answer = await cluster.network.fetch(18001, "/health/ready", address=plane["status"]["podIP"])
        text = answer.json()["checks"]["config"]
        return text if answer.status == 200 and words in text else None

    found = await until(said, what=f"{plane['metadata']['name']} to say {words!r}", within_s=within_s)
    assert found is not None
    return found


async def test_an_envoy_that_starts_is_served_by_a_control_plane_that_started_without_the_api_server(
    scene: Scene, faults: Faults
) -> None:
    cluster = scene.cluster
    planes, envoy = control_planes(cluster), scene.envoys()[0]
    await keeps(scene, planes)
    with faults.no_api_server():
        for plane in planes:
            kill(cluster, plane)
        said = [await says(cluster, plane, "serving the snapshot that was kept") for plane in planes]
        assert all("the source is not read yet" in each for each in said)
        # Its process knows nothing: all that it serves has come from what was kept.
        kill(cluster, envoy)
        await scene.answers("/steady", within_s=60)
    for plane in planes:
        await says(cluster, plane, "ok")
    later = scene.route("later", rule("/later", "echo"))
    cluster.apply([later])
    await scene.answers("/later", within_s=60)
    scene.accepted(later)


async def test_no_request_fails_when_control_planes_start_without_the_api_server(scene: Scene, faults: Faults) -> None:
    planes = control_planes(scene.cluster)
    await keeps(scene, planes)
    async with scene.traffic() as traffic:
        with faults.no_api_server():
            for plane in planes:
                kill(scene.cluster, plane)
                await says(scene.cluster, plane, "serving the snapshot that was kept")
            await traffic.goes_on(600)
        for plane in planes:
            await says(scene.cluster, plane, "ok")
        scene.cluster.apply([scene.route("later", rule("/later", "echo"))])
        await scene.answers("/later", within_s=60)
        await traffic.stop()
    traffic.assert_none_failed()
