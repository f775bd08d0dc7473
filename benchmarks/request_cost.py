"""Envoy's own cost: CPU a proxied request, by the number of routes."""

from __future__ import annotations

from benchmarks.load import load
from benchmarks.scene import Scene


async def cpu_us_per_request(scene: Scene, *, requests: int = 20_000, rounds: int = 3) -> float:
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
        before = scene.envoy.process.cpu_s()
        await send(requests)
        costs.append((scene.envoy.process.cpu_s() - before) / requests * 1e6)
    # Noise of other processes only ever adds.
    return min(costs)
