"""Large files are read without stopping anybody."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path

import pytest

from ratelimit_service.answers import Answers
from ratelimit_service.file_source import FileSource
from ratelimit_service.handler import RateLimiter
from ratelimit_service.model import Config
from ratelimit_service.service import PlanOptions, Service
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock
from tests.support.waiting import until


def new_service() -> Service:
    stats = StatsRegistry()
    return Service(RateLimiter(MemoryStore(), stats, clock=Clock(), answers=Answers()), stats, PlanOptions())


def test_the_garbage_collector_stops_nobody_while_a_large_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    descriptors = "".join(f"- {{key: k{i}, rate_limit: {{unit: day, requests_per_unit: 1}}}}\n" for i in range(500))
    file.write_text(f"domain: d\ndescriptors:\n{descriptors}")
    enabled, thresholds = gc.isenabled(), gc.get_threshold()
    collected: list[str] = []
    # Commands that are tested in this process leave it out.
    gc.enable()
    gc.set_threshold(1000, 1, 1)
    gc.callbacks.append(lambda phase, _: collected.append(phase))
    try:
        _, (files, config, faults) = FileSource(file, new_service())._followed._read()
        # Once it may run when it is let in again.
        assert collected.count("start") <= 1
        assert gc.isenabled()
    finally:
        gc.callbacks.pop()
        gc.set_threshold(*thresholds)
        if not enabled:
            gc.disable()
    assert (len(files), len(config.domains["d"].root.children), faults) == (1, 500, [])


async def test_a_folder_that_has_become_empty_is_told_louder_than_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]\n")
    source = FileSource(tmp_path, new_service())
    with caplog.at_level(logging.INFO):
        await source.load()
        file.unlink()
        await source.load()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"configuration in force: 1 domain from {tmp_path}"),
        ("WARNING", f"no limits are in force: there is no file of limits in {tmp_path}"),
    ]


async def test_a_change_that_could_not_be_planned_is_tried_again_by_who_follows_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("domain: d\n")
    service = new_service()
    source = FileSource(file, service)
    await source.load()
    file.write_text("domain: changed\n")

    def fail(config: Config) -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(service, "_prepared", fail)
        with pytest.raises(RuntimeError):
            await source.run()
    assert [*service.config.domains] == ["d"]
    following = asyncio.create_task(source.run())
    try:
        await until(lambda: [*service.config.domains] == ["changed"], what="the change")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize(
    "kept", [b"", b"[]", b'{"a": 5}', b'{"a": "domain"}', b'{"a": "\\ud800"}', b"\xff", b"[" * 100_000]
)
async def test_a_damaged_last_good_copy_is_told_and_not_used(
    tmp_path: Path, kept: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file, last_good = tmp_path / "limits.yaml", tmp_path / "kept.json"
    file.write_text("nonsense")
    last_good.write_bytes(kept)
    service = new_service()
    await FileSource(file, service, last_good=last_good).load()
    assert not service.ready
    assert any(str(last_good) in message for message in caplog.messages)


async def test_that_a_fault_is_mended_is_told_as_loud_as_the_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("domain: [\n")
    source = FileSource(file, new_service())
    with caplog.at_level(logging.WARNING):
        await source.load()
        file.write_text("domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]\n")
        await source.load()
        await source.load()
    told = [(record.levelname, record.message) for record in caplog.records]
    assert told[0][0] == "ERROR"
    assert told[1:] == [("WARNING", f"configuration in force: 1 domain from {file}")]
