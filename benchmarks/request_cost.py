"""Envoy's own cost: CPU a proxied request, by the number of routes."""

from __future__ import annotations

from benchmarks.cpu import cpu_s
from benchmarks.load import load
from benchmarks.scene import Scene


async def cpu_us_per_request(scene: Scene, *, requests: int = 8_000, rounds: int = 4) -> float:
    """Returns microseconds of Envoy's CPU a request to the last route: the least of some rounds, after a warm-up."""
    folder = scene.folder
    last = folder.routes - 1

    async def send(number: int) -> None:
        done = await load(folder.port, host=folder.host(last), path=folder.first_path(last), requests=number)
        if done.failed:
            raise RuntimeError(f"{done.failed} of {number} requests failed")

    await send(requests // 4)
    costs: list[float] = []
    for _ in range(rounds):
        before = cpu_s(scene.envoy.process.pid)
        await send(requests)
        costs.append((cpu_s(scene.envoy.process.pid) - before) / requests * 1e6)
    # Noise of other processes only ever adds.
    return min(costs)
