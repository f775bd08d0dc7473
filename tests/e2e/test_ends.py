"""A service that is told to end does so at once, also while it reads a very large configuration."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.process import ChildProcess
from tests.support.waiting import until

READS_S = 0.5
"""CPU time after which something large is being read, and is not read yet."""
ENDS_WITHIN_S = 3.0


def limits(count: int) -> str:
    lines = (
        f"- {{key: k, value: '{n}', rate_limit: {{unit: hour, requests_per_unit: {n + 1}}}}}" for n in range(count)
    )
    return "\n".join(["domain: d", "descriptors:", *lines])


def keys(count: int) -> str:
    lines = (f"    - {{id: k{n}, sha256: {n:064x}, client: acme}}" for n in range(count))
    return "\n".join(["policies:", "- id: shop/keys", "  apiKeys:", "    keys:", *lines])


SERVICES = [("ratelimit_service", limits, 90_000), ("ext_authz", keys, 250_000)]


def started(module: str, folder: Path, config: Path) -> ChildProcess:
    settings = {"listen": f"unix:{folder}/socket", "config": str(config), "state": str(folder / "state")}
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-P", "-m", module, str(folder / "settings.json")]
    return ChildProcess(command, log=folder / "log", cwd=Path(__file__).parents[2])


async def ends_at_once(process: ChildProcess) -> None:
    process.signal(signal.SIGTERM)
    told = time.monotonic()
    assert await process.ended(within_s=20) == 0, process.tail()
    assert time.monotonic() - told < ENDS_WITHIN_S
    # An interpreter that dies with a thread at work says so.
    assert "Fatal" not in process.output()
    assert "Traceback" not in process.output()


@pytest.mark.parametrize(("module", "written", "many"), SERVICES)
async def test_a_service_ends_at_once_while_it_reads_a_very_large_file(
    module: str, written: Callable[[int], str], many: int, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(written(1))
    process = started(module, tmp_path, config)
    try:
        await until((tmp_path / "socket").exists, what="the service", within_s=30, detail=process.tail)
        (tmp_path / "new").write_text(written(many))
        before_s = process.cpu_s()
        (tmp_path / "new").rename(config)
        await until(lambda: process.cpu_s() > before_s + READS_S, what="the file to be read", detail=process.tail)
        await ends_at_once(process)
    finally:
        await process.stop()


@pytest.mark.parametrize(("module", "written", "many"), SERVICES)
async def test_a_service_that_has_not_read_its_file_yet_ends_at_once(
    module: str, written: Callable[[int], str], many: int, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(written(many))
    process = started(module, tmp_path, config)
    try:
        await until(lambda: process.cpu_s() > 2.5 + READS_S, what="the file to be read", within_s=30)
        assert not (tmp_path / "socket").exists()
        await ends_at_once(process)
    finally:
        await process.stop()
