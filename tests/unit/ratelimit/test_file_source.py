"""Files are followed also where they cannot be watched."""

from __future__ import annotations

import asyncio
import contextlib
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


@pytest.mark.parametrize("fault", [RuntimeError("Too many open files"), OSError("OS file watch limit reached.")])
async def test_files_are_looked_at_where_the_machine_has_no_watcher_to_give(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watcher(*folders: Path, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr(file_source, "awatch", no_watcher)
    stats = StatsRegistry()
    limiter = RateLimiter(MemoryStore(), stats, clock=Clock(), answers=Answers())
    service = Service(limiter, stats, PlanOptions())
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
