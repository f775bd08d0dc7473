"""The API server dies, forgets and comes back: traffic goes on, and what changed meanwhile is in force afterwards."""

from __future__ import annotations

import os
import signal

from tests.support.cluster_faults import Faults
from tests.support.cluster_scene import Scene, control_planes, kill, pid_of, rule


async def test_no_request_fails_while_the_api_server_is_gone(scene: Scene, faults: Faults) -> None:
    async with scene.traffic() as traffic:
        with faults.no_api_server():
            await traffic.goes_on(600)
        later = scene.route("later", rule("/later", "echo"))
        scene.cluster.apply([later])
        await scene.answers("/later", within_s=60)
        scene.accepted(later)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_an_envoy_that_starts_while_the_api_server_is_gone_gets_its_config(scene: Scene, faults: Faults) -> None:
    envoy = scene.envoys()[0]
    with faults.no_api_server():
        kill(scene.cluster, envoy)
        await scene.answers("/steady", within_s=60)


async def test_a_frozen_store_changes_nothing_for_traffic(scene: Scene, faults: Faults) -> None:
    async with scene.traffic() as traffic:
        with faults.frozen("etcd"):
            await traffic.goes_on(1200)
        scene.cluster.wait(lambda: scene.cluster.api.get("/readyz") == "ok", what="the API server", within_s=60)
        scene.cluster.apply([scene.route("later", rule("/later", "echo"))])
        await scene.answers("/later", within_s=60)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_what_was_deleted_in_forgotten_history_is_noticed(scene: Scene, faults: Faults) -> None:
    deleted, kept = scene.route("deleted", rule("/deleted", "echo")), scene.route("kept", rule("/kept", "echo"))
    scene.cluster.apply([deleted, kept])
    await scene.answers("/deleted")
    await scene.answers("/kept")
    planes = [pid_of(pod) for pod in control_planes(scene.cluster)]
    async with scene.traffic() as traffic:
        for pid in planes:
            os.kill(pid, signal.SIGSTOP)
        try:
            scene.cluster.delete(deleted)
            scene.cluster.apply([scene.route("added", rule("/added", "echo"))])
            with faults.no_api_server():
                faults.compact()
        finally:
            for pid in planes:
                os.kill(pid, signal.SIGCONT)
        await scene.answers("/deleted", 404, within_s=60)
        await scene.answers("/added", within_s=60)
        await scene.answers("/kept")
        await traffic.stop()
    traffic.assert_none_failed()
