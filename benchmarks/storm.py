"""No request fails: a storm of changes and restarts at full length, and changes that interleave at random."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Sequence

from rich.console import Console
from rich.markup import escape

from benchmarks.cpu import cpu_s
from benchmarks.rows import Row, median_ms, p95_ms
from tests.support.storm.agreement import differences, troubles
from tests.support.storm.rig import Rig, rig
from tests.support.storm.storm import Plan, storm_over

PLAN = Plan(
    adds=1_000,
    edits=200,
    removals=200,
    reorderings=20,
    policies=80,
    gateway_edits=40,
    rotations=8,
    endpoint_moves=20,
    restarts=5,
)
SHORT = Plan(
    adds=200,
    edits=60,
    removals=60,
    reorderings=10,
    policies=40,
    gateway_edits=10,
    rotations=4,
    endpoint_moves=10,
    restarts=2,
)
_ROUTES = 1_000
_CALM_S = 10.0
_FEW_ROUTES = 100
_EDITED = 6
_STEPS = 60


async def measure(*, routes: int = _ROUTES, plan: Plan = PLAN, seed: int = 0) -> list[Row]:
    """Runs the storm over so many routes. Each request that fails is printed with what was done at that moment."""
    name = f"storm over {routes} routes"
    async with rig(routes) as storming, storm_over(storming, plan, seed=seed) as storm:
        traffic = storming.traffic
        traffic.go()
        calm_share, _ = await _envoys_share(storming, asyncio.sleep(_CALM_S))
        calm = len(traffic.times_s)
        share, took_s = await _envoys_share(storming, storm.run(plan))
        different = await differences(storming, within_s=60.0)
        await traffic.pause()
        wrong = [*different, *await troubles(storming)]
    _tell(traffic.report(20) if traffic.failed else "", wrong)
    changes_s = storming.world.took_s
    return [
        Row(f"{name}: failed requests", traffic.failed, "requests", 0.0),
        Row(f"{name}: what is otherwise at the end than after a cold start", len(wrong), "findings", 0.0),
        Row(f"{name}: requests", traffic.sent, "requests"),
        Row(f"{name}: steady requests", traffic.reached_per_s, "requests/s", None, 200.0),
        Row(f"{name}: how long it took", took_s, "s"),
        Row(f"{name}: a change until every Envoy answers so, median", median_ms(changes_s), "ms"),
        Row(f"{name}: a change until every Envoy answers so, p95", p95_ms(changes_s), "ms"),
        Row(f"{name}: control plane started until ready, median", statistics.median(storm.restarter.ready_s), "s"),
        Row(f"{name}: answers before it, p99", traffic.p99_ms(until=calm), "ms"),
        Row(f"{name}: answers during it, p99", traffic.p99_ms(since=calm), "ms"),
        Row(f"{name}: CPU of an Envoy before it", calm_share, "% of a core"),
        Row(f"{name}: CPU of an Envoy during it", share, "% of a core"),
    ]


async def interleavings(*, seeds: Sequence[int] = range(10), steps: int = _STEPS) -> list[Row]:
    """Makes changes upon one another, without waiting for any; after each seed Envoy must have what a cold start gives.

    Every second seed restarts the control plane in the midst of it.
    """
    few = Plan(0, _EDITED, 0, 0, 0, 0, 0, 0, 0)
    wrong: list[str] = []
    async with rig(_FEW_ROUTES, envoys=1) as storming, storm_over(storming, few) as storm:
        storming.traffic.go()
        for seed in seeds:
            await storm.interleave(steps, random.Random(seed), restarts=seed % 2 == 1)
            found = await differences(storming, drained=False)
            wrong += [f"seed {seed}: {each}" for each in found]
            storming.traffic.settle()
        wrong += await differences(storming)
        await storming.traffic.pause()
        wrong += await troubles(storming)
    traffic = storming.traffic
    _tell(traffic.report(20) if traffic.failed else "", wrong)
    name = f"{len(seeds)} times {steps} changes at random"
    return [
        Row(f"{name}: failed requests", traffic.failed, "requests", 0.0),
        Row(f"{name}: requests", traffic.sent, "requests"),
        Row(f"{name}: what is otherwise in Envoy than after a cold start", len(wrong), "findings", 0.0),
    ]


async def _envoys_share(storming: Rig, work: Awaitable[None]) -> tuple[float, float]:
    """Returns the CPU of an Envoy, as a share of a core, while something is done; and how long that took."""
    pids = [envoy.process.pid for envoy in storming.envoys.values()]
    began_at, before_s = time.perf_counter(), cpu_s(*pids)
    await work
    took_s = time.perf_counter() - began_at
    return (cpu_s(*pids) - before_s) / len(pids) / took_s * 100, took_s


def _tell(failures: str, wrong: Sequence[str]) -> None:
    console = Console(stderr=True)
    for text in (failures, *wrong):
        if text:
            console.print(escape(text), style="red", soft_wrap=True, highlight=False)
