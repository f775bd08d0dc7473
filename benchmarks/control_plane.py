"""The control plane's rows: cold start, change until effect, memory, requests that failed meanwhile."""

from __future__ import annotations

import time

from benchmarks.rows import Row, median_ms, p95_ms
from benchmarks.scene import Scene
from tests.support.traffic import Probe, Target

_MIB = 1024 * 1024
# Budgets by number of routes; between and beyond them a row is only reported.
_CHANGE_MS = {1_000: 15.0, 10_000: 90.0}
_COLD_START_S = {10_000: 3.0}
_MEMORY_MIB = {1_000: 256.0, 10_000: 600.0}


async def measure(scene: Scene, *, changes: int) -> list[Row]:
    """Measures on a scene that is up; leaves it with other paths than at first."""
    routes = scene.folder.routes
    changed = [await _change(scene, number) for number in range(changes)]
    added = [await _add(scene, number) for number in range(changes)]
    failed = await _failures(scene, changes=5)
    return [
        Row(
            f"cold start until the last of {routes} routes answers", scene.cold_start_s, "s", _COLD_START_S.get(routes)
        ),
        Row(f"one route changed among {routes}, median", median_ms(changed), "ms", _CHANGE_MS.get(routes)),
        Row(f"one route changed among {routes}, p95", p95_ms(changed), "ms"),
        Row(f"one route added to {routes}, median", median_ms(added), "ms", _CHANGE_MS.get(routes)),
        Row(f"failed requests through 5 changes among {routes}", failed, "requests", 0.0),
        Row(
            f"control plane memory at {routes} routes",
            scene.control_plane.memory_bytes() / _MIB,
            "MiB",
            _MEMORY_MIB.get(routes),
        ),
        Row(f"Envoy memory at {routes} routes", scene.envoy.process.memory_bytes() / _MIB, "MiB"),
        Row(f"time series in Envoy at {routes} routes", len(await scene.envoy.stats()), "series"),
    ]


async def _change(scene: Scene, number: int) -> float:
    index = (number * 37) % scene.folder.routes
    path = f"/changed-{number}"
    began_at = time.perf_counter()
    scene.folder.change(index, path)
    return await scene.answers(index, path) - began_at


async def _add(scene: Scene, number: int) -> float:
    # Beside the others of a host that is there already.
    index = scene.folder.routes + number
    path = f"/added-{number}"
    began_at = time.perf_counter()
    scene.folder.add(index, path)
    took_s = await scene.answers(index, path) - began_at
    scene.folder.remove(index)
    # Envoy is busy with the removal until it shows.
    await scene.answers(index, path, status=404)
    return took_s


async def _failures(scene: Scene, *, changes: int) -> float:
    last = scene.folder.routes - 1
    target = Target(scene.folder.first_path(last), scene.folder.host(last))
    async with Probe(scene.folder.port, [target], rate_per_s=220.0) as probe:
        for number in range(changes):
            path = f"/again-{number}"
            scene.folder.change(0, path)
            await scene.answers(0, path)
    return float(len(probe.failed))
