"""Files are followed also where they cannot be watched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service import file_source
from ratelimit_service.answers import Answers
from ratelimit_service.file_source import FileSource
from ratelimit_service.handler import RateLimiter
from ratelimit_service.service import PlanOptions, Service
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock
from tests.support.waiting import until


def new_service() -> Service:
    stats = StatsRegistry()
    return Service(RateLimiter(MemoryStore(), stats, clock=Clock(), answers=Answers()), stats, PlanOptions())


@pytest.mark.parametrize("fault", [RuntimeError("Too many open files"), OSError("OS file watch limit reached.")])
async def test_files_are_looked_at_where_the_machine_has_no_watcher_to_give(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watcher(*folders: Path, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr(file_source, "awatch", no_watcher)
    service = new_service()
    file = tmp_path / "limits.yaml"
    file.write_text("domain: before\n")
    source = FileSource(file, service)
    with caplog.at_level(logging.WARNING):
        source.load()
        running = asyncio.create_task(source.run())
        try:
            for domain in ("after", "later"):
                file.write_text(f"domain: {domain}\n")
                await until(lambda domain=domain: domain in service.config.domains, what="the change")
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    assert [record.message for record in caplog.records].count(
        f"{file} cannot be watched, and is looked at once a second: {fault}"
    ) == 1


def test_the_garbage_collector_stops_nobody_while_a_large_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    descriptors = "".join(f"- {{key: k{i}, rate_limit: {{unit: day, requests_per_unit: 1}}}}\n" for i in range(500))
    file.write_text(f"domain: d\ndescriptors:\n{descriptors}")
    thresholds = gc.get_threshold()
    collected: list[str] = []
    gc.set_threshold(1000, 1, 1)
    gc.callbacks.append(lambda phase, _: collected.append(phase))
    try:
        files, config, faults = FileSource(file, new_service())._read()
        # Once it may run when it is let in again.
        assert collected.count("start") <= 1
        assert gc.isenabled()
    finally:
        gc.callbacks.pop()
        gc.set_threshold(*thresholds)
    assert (len(files), len(config.domains["d"].root.children), faults) == (1, 500, [])
