"""The control plane's rows without processes and sockets: what reading, compiling, translating and encoding cost."""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.manifests import Folder
from benchmarks.rows import Row
from controlplane.engine import Engine
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes
from controlplane.sources.files import FileSource

_ONE_CHANGE_MS = 5.0


async def measure(routes: int, *, changes: int) -> list[Row]:
    """Measures the source and the engine on so many routes, in this process."""
    with tempfile.TemporaryDirectory(prefix="dgb-") as home:
        folder = Folder(Path(home), routes, port=8080, upstream_port=9000)
        folder.write()
        source = FileSource(folder.path)
        engine = Engine(bind=bind, now=lambda: datetime.now(UTC))
        # As the control plane does: nothing that it makes while it starts is garbage.
        gc.disable()
        began_at = time.perf_counter()
        everything = source.read()
        read_at = time.perf_counter()
        engine.apply(everything)
        applied_at = time.perf_counter()
        gc.collect()
        gc.freeze()
        gc.enable()
        noticed_ms, applied_ms = await _changes(folder, source, engine, changes)
        gc.unfreeze()
    return [
        Row.at(routes, "the engine alone: N routes read from files", read_at - began_at, "s"),
        Row.at(routes, "the engine alone: N routes compiled, translated, encoded", applied_at - read_at, "s"),
        Row.at(routes, "the engine alone: one change among N noticed and parsed, median", noticed_ms, "ms"),
        Row.at(
            routes,
            "the engine alone: one change among N compiled, translated, encoded, median",
            applied_ms,
            "ms",
            dict.fromkeys((1_000, 10_000), _ONE_CHANGE_MS),
        ),
    ]


async def _changes(folder: Folder, source: FileSource, engine: Engine, count: int) -> tuple[float, float]:
    noticed: list[float] = []
    applied: list[float] = []
    stop = asyncio.Event()
    watching = source.watch(stop)
    # The watch takes hold when it is first awaited, so one change goes ahead of those that are timed.
    for number in range(count + 1):
        path = f"/changed-{number}"
        began_at = time.perf_counter()
        folder.change((number * 37) % folder.routes, path)
        changes = await _next(watching)
        noticed_at = time.perf_counter()
        engine.apply(changes)
        applied.append(time.perf_counter() - noticed_at)
        noticed.append(noticed_at - began_at)
    stop.set()
    return statistics.median(noticed[1:]) * 1000, statistics.median(applied[1:]) * 1000


async def _next(watching: AsyncIterator[Changes]) -> Changes:
    async with asyncio.timeout(30):
        while True:
            changes = await anext(watching)
            if changes.upserted:
                return changes
