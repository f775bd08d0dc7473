"""Who moves backends: new ones are there before the old are gone, and the old go as soon as nobody needs them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final

from tests.support.storm.judge import Ask, Target
from tests.support.storm.world import World, route, rule, service
from tests.support.upstream import Upstream

_UNDER_WAY_S: Final = 0.5
"""How long requests may take that were under way to a backend when it was taken out."""


@dataclass(slots=True)
class Mover:
    """Moves a Service's endpoints from backends to others, and stops those that have no more requests to come."""

    world: World
    random: random.Random
    name: str = "mover"
    target: Target = field(init=False)
    running: list[Upstream] = field(default_factory=list[Upstream])
    made: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        self.target = Target(Ask(f"/{self.name}", "mover.storm.example"), frozenset({"404"}))

    async def begin(self) -> None:
        """Writes the Service and its route, and waits for them."""
        self.running = [await self._start()]
        self._write()
        to_it = route(self.name, "mover.storm.example", [rule(f"/{self.name}", self.name)])
        await self.world.change(
            {self.target: self._answers()}, lambda: self.world.write(f"{self.name}-route.yaml", to_it)
        )
        self.world.traffic.watch(self.target)

    async def run(self, moves: int) -> None:
        """Moves so many times."""
        while self.done < moves:
            await self.move()
            await asyncio.sleep(self.random.uniform(0, 0.1))

    async def move(self) -> None:
        """Replaces the backends by one or two others."""
        self.done += 1
        old = self.running
        kept = old[:1] if self.random.random() < 0.3 else []
        self.running = [*kept, *[await self._start() for _ in range(self.random.choice((1, 1, 2)))]]
        await self.world.change({self.target: self._answers()}, self._write)
        await asyncio.sleep(_UNDER_WAY_S)
        for upstream in old:
            if upstream not in kept:
                self.world.ring.note(f"{upstream.name} ends")
                upstream.stop()

    async def end(self) -> None:
        """Stops all backends."""
        for upstream in self.running:
            upstream.stop()

    def _answers(self) -> list[str]:
        return [f"200 {upstream.name}" for upstream in self.running]

    def _write(self) -> None:
        ports = [upstream.port for upstream in self.running]
        names = " and ".join(upstream.name for upstream in self.running)
        documents = service(self.name, *ports)
        self.world.write(f"{self.name}.yaml", *documents, note=f"endpoints of {self.name}: {names}")

    async def _start(self) -> Upstream:
        upstream = Upstream(f"{self.name}-{self.made}")
        self.made += 1
        await upstream.start()
        upstream.answer(200, b"ok", (("x-backend", upstream.name),))
        return upstream
