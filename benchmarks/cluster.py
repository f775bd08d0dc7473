"""Rows of the product in a Kubernetes cluster: from the API server to the answers of Envoy, and what it costs."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster_faults import cold_start, idle
from benchmarks.cluster_scene import NAMESPACE, ClusterScene, cluster_scene_of, first_path, host
from benchmarks.cpu import cpu_s, memory_bytes
from benchmarks.manifests import backend
from benchmarks.rows import Row, median_ms, p95_ms
from tests.support.cluster import NAMESPACE as PRODUCT
from tests.support.cluster import Cluster
from tests.support.cluster_counts import StatusWrites
from tests.support.cluster_scene import condition, control_planes, gateway, pods

_MIB = 1024 * 1024
_CHANGE_MS = {1_000: 15.0, 10_000: 90.0}
_MEMORY_MIB = {1_000: 256.0, 10_000: 600.0}
_STEP = re.compile(r"1 objects changed, 1 snapshots new, ([\d.]+) ms")


async def measure(routes: int, *, changes: int, name: str = "bench") -> list[Row]:
    """Starts a cluster of the rig's and measures with so many HTTPRoutes."""
    with Cluster.start(name) as cluster:
        async with cluster_scene_of(cluster) as scene:
            rows = await _gateways(scene) if routes <= 1_000 else []
            rows += await _created(scene, routes)
            rows += await _changes(scene, routes, changes)
            rows += await _endpoints(scene, routes, changes)
            rows += await idle(scene, routes)
            rows += await cold_start(scene, routes)
            return rows


# Many routes at once


async def _created(scene: ClusterScene, routes: int) -> list[Row]:
    documents = [scene.route(index, first_path(index)) for index in range(routes)]
    names = [document["metadata"]["name"] for document in documents]
    before = StatusWrites.now(scene.cluster.api)
    pids = scene.control_plane(), scene.envoy(), scene.api_server()
    cpu = [cpu_s(pid) for pid in pids]
    accepted = asyncio.create_task(scene.moments.until_accepted(names, 1, within_s=600))
    began = time.perf_counter()
    await scene.create(documents)
    created = time.perf_counter()
    served = await scene.answers(first_path(routes - 1), host=host(routes - 1))
    told = await accepted
    used = [cpu_s(pid) - each for pid, each in zip(pids, cpu, strict=True)]
    await _attached(scene, routes + 1)
    writes = StatusWrites.now(scene.cluster.api)
    what = "N HTTPRoutes created at once"
    a_route = writes.since(before, "httproutes") / routes
    memory_mib = memory_bytes(pids[0]) / _MIB
    return [
        Row.at(routes, f"{what}: until the API server has them", created - began, "s"),
        Row.at(routes, f"{what}: from then until the last is served", max(0.0, served - created), "s"),
        Row.at(routes, f"{what}: from then until the last says that it is accepted", max(0.0, told - created), "s"),
        Row.at(routes, f"{what}: status writes a route", a_route, "writes", {routes: 1.0}),
        Row.at(routes, f"{what}: status writes of the Gateway", writes.since(before, "gateways"), "writes"),
        Row.at(routes, f"{what}: CPU of the control plane", used[0], "s"),
        Row.at(routes, f"{what}: CPU of Envoy", used[1], "s"),
        Row.at(routes, f"{what}: CPU of the API server", used[2], "s"),
        Row.at(routes, "control plane memory in a cluster with N routes", memory_mib, "MiB", _MEMORY_MIB),
    ]


async def _attached(scene: ClusterScene, routes: int) -> None:
    edge = gateway(NAMESPACE)
    await asyncio.to_thread(
        scene.cluster.wait_for,
        edge,
        lambda found: found["status"]["listeners"][0]["attachedRoutes"] == routes,
        what="attachedRoutes",
        within_s=60,
    )


# One route changed


@dataclass(frozen=True, slots=True)
class _Change:
    from_answer_s: float
    from_event_s: float
    told_s: float
    control_plane_s: float
    envoy_s: float


async def _changes(scene: ClusterScene, routes: int, changes: int) -> list[Row]:
    pids = scene.control_plane(), scene.envoy()
    done = [await _change(scene, (number * 37) % routes, number, pids) for number in range(changes)]
    steps_ms = _steps_ms(scene.cluster)[-changes:]
    what, step_ms = "one HTTPRoute changed among N in a cluster", statistics.median(steps_ms or [0.0])
    from_answer, from_event = [d.from_answer_s for d in done], [d.from_event_s for d in done]
    return [
        Row.at(routes, f"{what}: from the API server's answer, median", median_ms(from_answer), "ms", _CHANGE_MS),
        Row.at(routes, f"{what}: from the API server's answer, p95", p95_ms(from_answer), "ms"),
        Row.at(routes, f"{what}: from the watch's event, median", median_ms(from_event), "ms"),
        Row.at(routes, f"{what}: from the API server's answer, least", min(from_answer) * 1000, "ms"),
        Row.at(routes, f"{what}: compiled, translated, encoded, median", step_ms, "ms", {routes: 5.0}),
        Row.at(routes, f"{what}: until its status says so, median", median_ms([d.told_s for d in done]), "ms"),
        Row.at(routes, f"{what}: CPU of the control plane, median", median_ms([d.control_plane_s for d in done]), "ms"),
        Row.at(routes, f"{what}: CPU of Envoy, median", median_ms([d.envoy_s for d in done]), "ms"),
    ]


async def _change(scene: ClusterScene, index: int, number: int, pids: Sequence[int]) -> _Change:
    path = f"/changed-{number}"
    document = scene.route(index, path)
    name = document["metadata"]["name"]
    api_path = scene.cluster.api.path(document)
    generation = scene.moments.there[name][0] + 1
    connection = await scene.connect()
    cpu = [cpu_s(pid) for pid in pids]
    await scene.api.patch(api_path, {"spec": document["spec"]})
    answered = time.perf_counter()
    served = await scene.answers(path, host=host(index), connection=connection)
    told = await scene.moments.until_accepted([name], generation)
    used = [cpu_s(pid) - each for pid, each in zip(pids, cpu, strict=True)]
    seen = scene.moments.there[name][1]
    # Envoy goes on for a while with what it was sent; the next change is not to wait for that.
    await asyncio.sleep(0.2)
    return _Change(served - answered, served - seen, told - answered, *used)


def _steps_ms(cluster: Cluster) -> list[float]:
    (pod,) = control_planes(cluster)
    text = cluster.kubectl("-n", PRODUCT, "logs", pod["metadata"]["name"], "-c", "controlplane", "--tail=400")
    return [float(found) for found in _STEP.findall(text)]


# One endpoint replaced


async def _endpoints(scene: ClusterScene, routes: int, changes: int) -> list[Row]:
    both = [pods(scene.cluster, NAMESPACE, f"app={name}")[0] for name in ("other", "echo")]
    slice_ = next(d for d in backend(99, 0) if d["kind"] == "EndpointSlice")
    api_path = scene.cluster.api.path(slice_)
    index = 99
    path = (await scene.api.get(scene.cluster.api.path(scene.route(index, ""))))["spec"]["rules"][0]["matches"][0]
    from_answer: list[float] = []
    for number in range(changes):
        pod = both[number % 2]
        endpoints = [{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True}}]
        connection = await scene.connect()
        await scene.api.patch(api_path, {"endpoints": endpoints})
        answered = time.perf_counter()
        by = pod["metadata"]["name"]
        served = await scene.answers(path["path"]["value"], host=host(index), by=by, connection=connection)
        from_answer.append(served - answered)
        await asyncio.sleep(0.1)
    what = "one endpoint replaced, N routes: from the API server's answer"
    return [
        Row.at(routes, f"{what}, median", median_ms(from_answer), "ms"),
        Row.at(routes, f"{what}, p95", p95_ms(from_answer), "ms"),
    ]


# A Gateway created


async def _gateways(scene: ClusterScene, *, times: int = 5) -> list[Row]:
    done = [await _gateway(scene, f"new-{number}") for number in range(times)]
    names = ("it has an address", "its first request is answered", "it is Programmed")
    return [
        Row(f"a Gateway created: until {name}, median", statistics.median(values), "s")
        for name, values in zip(names, zip(*done, strict=True), strict=True)
    ]


async def _gateway(scene: ClusterScene, name: str) -> tuple[float, float, float]:
    document = gateway(NAMESPACE, name=name)
    own = scene.route(0, "/first")
    own["metadata"]["name"] = name
    own["spec"] |= {"parentRefs": [{"name": name}], "hostnames": [f"{name}.example.com"]}
    await scene.create([own])
    moments: dict[str, float] = {}
    addressed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    await scene.create([document])
    watch = asyncio.create_task(_gateway_told(scene, name, moments, addressed))
    try:
        async with asyncio.timeout(60):
            address = await addressed
            served = await scene.answers("/first", host=f"{name}.example.com", address=address)
            await watch
    finally:
        watch.cancel()
    await asyncio.to_thread(scene.cluster.delete, document, own)
    return moments["address"] - began, served - began, moments["programmed"] - began


async def _gateway_told(
    scene: ClusterScene, name: str, moments: dict[str, float], addressed: asyncio.Future[str]
) -> None:
    path = scene.cluster.api.path_of("gateway.networking.k8s.io/v1", "Gateway", NAMESPACE)
    params = {"resourceVersion": "0", "timeoutSeconds": "600", "fieldSelector": f"metadata.name={name}"}
    async for line in scene.api.lines(path, params=params):
        at = time.perf_counter()
        status: dict[str, Any] = json.loads(line)["object"].get("status", {})
        if status.get("addresses") and not addressed.done():
            moments["address"] = at
            addressed.set_result(status["addresses"][0]["value"])
        if condition(status, "Programmed").get("status") == "True":
            moments["programmed"] = at
            return
