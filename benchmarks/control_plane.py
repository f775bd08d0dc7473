"""The control plane's rows, at each size: cold start, a change until its effect and what it costs, memory, failures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.cpu import cpu_s
from benchmarks.request_cost import cpu_us_per_request
from benchmarks.rows import Row, median_ms, p95_ms
from benchmarks.scene import Scene, scene
from tests.support.traffic import Probe, Target

_MIB: Final = 1024 * 1024
# Budgets by number of routes; between and beyond them a row is only reported.
_CHANGE_MS: Final = {1_000: 15.0, 10_000: 90.0}
_COLD_START_S: Final = {10_000: 3.0}
_MEMORY_MIB: Final = {1_000: 256.0, 10_000: 600.0}
_STEP_MS: Final = {1_000: 5.0, 10_000: 5.0}
_STEP: Final = ("load", "compile")
_MANY: Final = 20_000


async def measure(routes: int, *, changes: int) -> list[Row]:
    """Measures with so many routes; where they are very many, with fewer changes."""
    changes = changes if routes <= _MANY else max(3, changes // 3)
    async with scene(routes) as up:
        costs = await _changes(up, changes)
        added_s = [await _add(up, number) for number in range(changes)]
        failed = await _failures(up, changes=5 if routes <= _MANY else 2)
        memory = up.control_plane.memory_bytes(), up.envoy.process.memory_bytes()
        series = len(await up.envoy.stats())
        request_us = await cpu_us_per_request(up, requests=4_000)
    return [
        Row.at(routes, "cold start until the last of N routes answers", up.cold_start_s, "s", _COLD_START_S),
        *costs.rows(routes),
        Row.at(routes, "one route added to N, median", median_ms(added_s), "ms", _CHANGE_MS),
        Row.at(routes, "failed requests through changes among N", failed, "requests", {routes: 0.0}),
        Row.at(routes, "control plane memory at N routes", memory[0] / _MIB, "MiB", _MEMORY_MIB),
        Row.at(routes, "Envoy memory at N routes", memory[1] / _MIB, "MiB"),
        Row.at(routes, "Envoy CPU a request, N routes, ten in a host", request_us, "µs"),
        Row.at(routes, "time series in Envoy at N routes", series, "series"),
    ]


@dataclass(frozen=True, slots=True)
class _Costs:
    """What changes took, each; and what the control plane counted meanwhile, of all."""

    effect_s: list[float]
    plane_s: list[float]
    envoy_s: list[float]
    counted: Mapping[str, float]

    def rows(self, routes: int) -> list[Row]:
        what = "one route changed among N"
        step_ms, all_ms = self._stages_ms(*_STEP), self._stages_ms(*_STEP, "wait", "publish")
        return [
            Row.at(routes, f"{what}, median", median_ms(self.effect_s), "ms", _CHANGE_MS),
            Row.at(routes, f"{what}, p95", p95_ms(self.effect_s), "ms"),
            Row.at(routes, f"{what}: checked, compiled, translated, encoded, mean", step_ms, "ms", _STEP_MS),
            Row.at(routes, f"{what}: from the source to the streams, mean", all_ms, "ms"),
            Row.at(routes, f"{what}: sent to Envoy, mean", self._kib(), "KiB"),
            Row.at(routes, f"{what}: CPU of the control plane, median", median_ms(self.plane_s), "ms"),
            Row.at(routes, f"{what}: CPU of Envoy, median", median_ms(self.envoy_s), "ms"),
        ]

    def _stages_ms(self, *stages: str) -> float:
        total_s = sum(self.counted[f'dragoman_stage_seconds_sum{{stage="{stage}"}}'] for stage in stages)
        return total_s / len(self.effect_s) * 1000

    def _kib(self) -> float:
        sent = sum(value for name, value in self.counted.items() if name.startswith("dragoman_xds_push_bytes_total"))
        return sent / len(self.effect_s) / 1024


async def _changes(scene: Scene, changes: int) -> _Costs:
    await scene.quiet()
    pids = scene.control_plane.pid, scene.envoy.process.pid
    effect_s: list[float] = []
    spent: list[list[float]] = []
    before = await scene.metrics()
    for number in range(changes):
        cpu = [cpu_s(pid) for pid in pids]
        effect_s.append(await _change(scene, number))
        # Envoy goes on for a while with what it was sent.
        await scene.quiet()
        spent.append([cpu_s(pid) - each for pid, each in zip(pids, cpu, strict=True)])
    after = await scene.metrics()
    counted = {name: value - before.get(name, 0.0) for name, value in after.items()}
    plane_s, envoy_s = map(list, zip(*spent, strict=True))
    return _Costs(effect_s, plane_s, envoy_s, counted)


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
