"""The storm: everybody changes something at the same time, and the traffic must not notice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.storm.endpoints import Mover
from tests.support.storm.gateways import GatewayEditor
from tests.support.storm.policies import Guardian
from tests.support.storm.restarts import Restarter
from tests.support.storm.rig import Rig
from tests.support.storm.routes import Added, Adder, Editor, Remover, Reorderer
from tests.support.tokens import SigningKey


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of what."""

    adds: int
    edits: int
    removals: int
    reorderings: int
    policies: int
    gateway_edits: int
    rotations: int
    endpoint_moves: int
    restarts: int
    edited_routes: int = 20


@dataclass(slots=True)
class Storm:
    """Everybody who changes something; what they need has been declared, and is in force."""

    adder: Adder
    editor: Editor
    remover: Remover
    reorderer: Reorderer
    guardian: Guardian
    gateways: GatewayEditor
    mover: Mover
    restarter: Restarter

    async def run(self, plan: Plan) -> None:
        """Makes all changes of the plan, at the same time."""

        def progress() -> float:
            done = self.adder.done + self.editor.done + self.guardian.done
            return done / max(1, plan.adds + plan.edits + plan.policies)

        async with asyncio.TaskGroup() as group:
            group.create_task(self.adder.run(plan.adds))
            group.create_task(self.editor.run(plan.edits))
            group.create_task(self.remover.run(plan.removals))
            group.create_task(self.reorderer.run(plan.reorderings))
            group.create_task(self.guardian.run(plan.policies))
            group.create_task(self.gateways.run(plan.gateway_edits))
            group.create_task(self.gateways.rotate(plan.rotations))
            group.create_task(self.mover.run(plan.endpoint_moves))
            group.create_task(self.restarter.run(plan.restarts, progress=progress))

    async def interleave(self, steps: int, chance: random.Random, *, restarts: bool = True) -> None:
        """Makes so many changes one upon another, without waiting for the effect of any."""
        restart_at = chance.randrange(steps) if restarts else -1
        restarting: asyncio.Task[None] | None = None
        there: list[Added] = []
        for step in range(steps):
            await self._anything(chance, there)
            if step == restart_at:
                restarting = asyncio.create_task(self.restarter.restart())
            await asyncio.sleep(chance.choice((0.0, 0.001, 0.005, 0.03)))
        if restarting is not None:
            await restarting

    async def _anything(self, chance: random.Random, there: list[Added]) -> None:
        match chance.choice(("add", "add", "edit", "edit", "guard", "listener", "order", "certificate", "remove")):
            case "add":
                there.append(await self.adder.add(wait=False))
            case "edit":
                await self.editor.edit(wait=False)
            case "guard":
                await self.guardian.change(wait=False)
            case "listener":
                await self.gateways.edit(wait=False)
            case "order":
                self.reorderer.reorder()
            case "certificate":
                self.gateways.world.certificate()
            case _:
                if there:
                    await self.remover.remove(there.pop(chance.randrange(len(there))), wait=False)


@asynccontextmanager
async def storm_over(rig: Rig, plan: Plan, *, seed: int = 0) -> AsyncIterator[Storm]:
    """Declares what the storm is about to change, and waits until it is in force."""
    world, chance, key = rig.world, random.Random(seed), SigningKey.make("storm")

    def another() -> random.Random:
        return random.Random(chance.random())

    adder = Adder(world, another(), key, len(rig.base))
    storm = Storm(
        adder,
        Editor(world, another(), len(rig.base)),
        Remover(world, adder),
        Reorderer(world, another()),
        Guardian(world, another(), key, rig.key),
        GatewayEditor(world, another()),
        Mover(world, another()),
        Restarter(rig.plane, world.ring, another()),
    )
    await storm.editor.begin(min(plan.edited_routes, max(1, plan.edits)))
    await storm.reorderer.begin()
    await storm.guardian.begin(4)
    await storm.gateways.begin()
    await storm.mover.begin()
    try:
        yield storm
    finally:
        await storm.mover.end()
