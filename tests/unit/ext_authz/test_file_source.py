"""A configuration file is followed also where it cannot be watched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest

from ext_authz import file_source
from ext_authz.file_source import FileSource
from ext_authz.policies import Policies
from tests.support.waiting import until


@pytest.mark.parametrize("fault", [RuntimeError("Too many open files"), OSError("OS file watch limit reached.")])
async def test_a_file_is_looked_at_where_the_machine_has_no_watcher_to_give(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watcher(*folders: Path, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr(file_source, "awatch", no_watcher)
    loads: list[None] = []
    file = tmp_path / "authz.yaml"
    file.write_text("policies: []\n")
    source = FileSource(file, Policies(), on_load=lambda: loads.append(None))
    with caplog.at_level(logging.WARNING):
        source.load()
        running = asyncio.create_task(source.run())
        try:
            for text in ("policies: [] # once\n", "policies: [] # and again\n"):
                before = len(loads)
                file.write_text(text)
                await until(lambda before=before: len(loads) > before, what="the change")
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    told = f"{file} cannot be watched, and is looked at once a second: {fault}"
    assert [record.message for record in caplog.records].count(told) == 1
