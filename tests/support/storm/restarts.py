"""Who restarts the control plane: politely and not, while everything else goes on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.dragoman import Serve
from tests.support.storm.events import Ring


@dataclass(slots=True)
class Restarter:
    """Ends the control plane by SIGTERM and by SIGKILL in turns, and brings it back."""

    plane: Serve
    ring: Ring
    random: random.Random
    done: int = 0
    ready_s: list[float] = field(default_factory=list[float])

    async def run(self, times: int, *, progress: Callable[[], float]) -> None:
        """Restarts so many times, spread over what `progress` (0 to 1) tells of the rest."""
        while self.done < times:
            if progress() < (self.done + 1) / (times + 1):
                await asyncio.sleep(0.02)
                continue
            await self.restart()

    async def restart(self) -> None:
        """Restarts once, after a moment without any control plane."""
        self.done += 1
        kill = self.done % 2 == 0
        self.ring.note(f"control plane {'killed' if kill else 'asked to end'}")
        await (self.plane.kill() if kill else self.plane.stop())
        await asyncio.sleep(self.random.uniform(0, 0.5))
        self.ring.note("control plane started")
        began_at = time.monotonic()
        await self.plane.start(within_s=60.0)
        self.ready_s.append(time.monotonic() - began_at)
        self.ring.note("control plane ready")
