"""The rows of a restart: from the start of the process until a client that waits is served what was kept."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import cpu_s
from benchmarks.manifests import GATEWAY, Folder
from benchmarks.restart_client import Waiting
from benchmarks.rows import Row
from benchmarks.scene import serve_process
from tests.support.http import fetch
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.waiting import until

RESTART_S = 0.5
_KEPT_WITHIN_S = 60.0
_SERVED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds from the start of the process: the first response, the last of what a new Envoy asks; CPU until then."""

    first_s: float
    whole_s: float
    cpu_s: float


async def measure(routes: int, *, restarts: int = 3) -> list[Row]:
    """Measures restarts of a control plane of so many routes: with its folder, and without."""
    async with _scene(routes) as scene:
        there = [await scene.restart() for _ in range(restarts)]
        os.rename(scene.folder.path, scene.home / "away")
        away = [await scene.restart() for _ in range(restarts)]
    return [
        Row(f"restart at {routes} routes: first response, median", _first_s(there), "s", RESTART_S),
        Row(f"restart at {routes} routes, folder away: first response, median", _first_s(away), "s", RESTART_S),
        Row(
            f"restart at {routes} routes: all that an Envoy asks for, median",
            statistics.median(each.whole_s for each in there),
            "s",
        ),
        Row(
            f"restart at {routes} routes: CPU of the process until the first response, median",
            statistics.median(each.cpu_s for each in [*there, *away]) * 1000,
            "ms",
        ),
    ]


def _first_s(restarts: list[Restart]) -> float:
    return statistics.median(each.first_s for each in restarts)


@dataclass(slots=True)
class _Scene:
    home: Path
    folder: Folder
    xds_port: int
    http_port: int
    process: ChildProcess

    async def restart(self) -> Restart:
        await self.process.kill()
        waiting = Waiting(self.xds_port, GATEWAY, f"{GATEWAY}/{self.folder.port}")
        asked = asyncio.create_task(waiting.served())
        began_at = time.perf_counter()
        self.process = self.start()
        pid = self.process.pid
        await asyncio.wait_for(waiting.first.wait(), _SERVED_WITHIN_S)
        spent_s = cpu_s(pid)
        first_at, whole_at = await asyncio.wait_for(asked, _SERVED_WITHIN_S)
        return Restart(first_at - began_at, whole_at - began_at, spent_s)

    def start(self) -> ChildProcess:
        state = ("--state", str(self.home / "state"))
        return serve_process(self.folder.path, self.xds_port, self.http_port, self.home, *state)

    async def serves(self) -> bool:
        """Whether everything has been read."""
        return (await fetch(self.http_port, "/health/ready")).status == 200

    def is_kept(self) -> bool:
        """Whether there is something to start again from: it is written some time after it was served."""
        with closing(sqlite3.connect(f"file:{self.home}/state/kept.db?mode=ro", uri=True)) as kept:
            return kept.execute("SELECT count(*) FROM resources").fetchone() != (0,)


@asynccontextmanager
async def _scene(routes: int) -> AsyncIterator[_Scene]:
    with tempfile.TemporaryDirectory(prefix="dgb-") as folder:
        home = Path(folder)
        port, upstream_port, xds_port, http_port = free_ports(4)
        manifests = Folder(home / "config", routes, port, upstream_port)
        manifests.write()
        process = serve_process(manifests.path, xds_port, http_port, home, "--state", str(home / "state"))
        scene = _Scene(home, manifests, xds_port, http_port, process)
        try:
            await until(scene.serves, what="everything to be read", within_s=_KEPT_WITHIN_S, detail=process.tail)
            await until(scene.is_kept, what="everything to be kept", within_s=_KEPT_WITHIN_S, detail=process.tail)
            yield scene
        finally:
            await scene.process.stop()
