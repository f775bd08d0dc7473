"""Rows of a control plane in a cluster that nothing is asked of, and of one that is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

from benchmarks.cluster_scene import ClusterScene, host
from benchmarks.cpu import cpu_s, memory_bytes
from benchmarks.rows import Row
from tests.support.cluster import Cluster
from tests.support.cluster_scene import control_planes, ready

_MIB = 1024 * 1024
_SERVICE_ACCOUNTS = re.compile(
    r'^apiserver_flowcontrol_dispatched_requests_total\{flow_schema="service-accounts",[^}]*\} (\S+)$', re.MULTILINE
)


async def idle(scene: ClusterScene, routes: int, *, window_s: float = 30.0) -> list[Row]:
    """Lets it be for a while. What asks the API server as a service account is the control plane alone."""
    pid = scene.control_plane()
    await asyncio.sleep(5.0)
    cpu, asked, began = cpu_s(pid), _asked(scene.cluster), time.perf_counter()
    await asyncio.sleep(window_s)
    took_s = time.perf_counter() - began
    cpu, asked = cpu_s(pid) - cpu, _asked(scene.cluster) - asked
    what = "idle control plane, N routes in a cluster"
    return [
        Row.at(routes, f"{what}: CPU", cpu / took_s * 100, "% of a core"),
        Row.at(routes, f"{what}: requests to the API server", asked / took_s, "requests/s"),
    ]


async def cold_start(scene: ClusterScene, routes: int) -> list[Row]:
    """Kills the control plane, and changes a route meanwhile."""
    document = scene.route(routes - 1, "/after")
    name = document["metadata"]["name"]
    generation = scene.moments.there[name][0] + 1
    before = scene.control_plane()
    killed = time.perf_counter()
    os.kill(before, signal.SIGKILL)
    await scene.api.patch(scene.cluster.api.path(document), {"spec": document["spec"]})
    served_task = asyncio.create_task(scene.answers("/after", host=host(routes - 1)))
    told_task = asyncio.create_task(scene.moments.until_accepted([name], generation))
    started, ready_at = await asyncio.to_thread(_up_again, scene, before)
    served, told = await served_task, await told_task
    pid = scene.control_plane()
    what = "control plane killed, N routes in a cluster"
    return [
        Row.at(routes, f"{what}: until its pod is started anew", started - killed, "s"),
        Row.at(routes, f"{what}: from its start until it is ready", ready_at - started, "s"),
        Row.at(routes, f"{what}: from its start until Envoy has what changed meanwhile", served - started, "s"),
        Row.at(routes, f"{what}: from its start until the status says so", told - started, "s"),
        Row.at(routes, f"{what}: its CPU since", cpu_s(pid), "s"),
        Row.at(routes, f"{what}: its memory", memory_bytes(pid) / _MIB, "MiB"),
    ]


def _up_again(scene: ClusterScene, before: int) -> tuple[float, float]:
    """Returns when another process was started, and when its pod was ready."""

    def ready_at() -> float | None:
        (pod,) = control_planes(scene.cluster)
        pid = scene.control_plane()
        return time.perf_counter() if pid != before and ready(pod) else None

    at = scene.cluster.wait(ready_at, what="the control plane", within_s=120)
    assert at is not None
    return _started_at(scene.control_plane()), at


def _started_at(pid: int) -> float:
    """Returns the moment (perf_counter) at which a process was started."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return time.perf_counter() - (uptime_s - ticks / os.sysconf("SC_CLK_TCK"))


def _asked(cluster: Cluster) -> int:
    """How many requests of service accounts the API server has answered."""
    counts = _SERVICE_ACCOUNTS.findall(cluster.api.get("/metrics"))
    return sum(int(float(count)) for count in counts)
