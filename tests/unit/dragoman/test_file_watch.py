"""Files are followed wherever they are, and also where they cannot be watched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dragoman import file_watch
from dragoman.file_watch import folders_of, looks
from tests.support.waiting import until


class Follower:
    """Reads a file whenever it is told to look."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found = ""

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self._run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def reads(self, text: str) -> None:
        await until(lambda: self.found == text, what=f"{text!r} to be read, not {self.found!r}")

    async def _run(self) -> None:
        async with contextlib.aclosing(looks(self.file, lambda: folders_of(self.file))) as found:
            async for _ in found:
                with contextlib.suppress(FileNotFoundError):
                    self.found = self.file.read_text()


@pytest.mark.parametrize("fault", [RuntimeError("Too many open files"), OSError("OS file watch limit reached.")])
async def test_files_are_looked_at_where_the_machine_has_no_watcher_to_give(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watcher(*folders: Path, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr(file_watch, "awatch", no_watcher)
    follower = Follower(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        async with follower.following():
            for text in ("once", "and again"):
                follower.file.write_text(text)
                await follower.reads(text)
    told = f"{follower.file} cannot be watched, and is looked at once a second: {fault}"
    assert [record.message for record in caplog.records].count(told) == 1


async def test_a_file_is_found_in_a_folder_that_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    follower = Follower(folder / "file")
    async with follower.following():
        for text in ("once", "and again"):
            folder.mkdir()
            follower.file.write_text(text)
            await follower.reads(text)
            follower.file.unlink()
            folder.rmdir()


def test_where_links_lead_is_watched_too(tmp_path: Path) -> None:
    for name in ("mounted", "versions", "versions/1", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "versions" / "1" / "file").symlink_to(tmp_path / "elsewhere" / "file")
    (tmp_path / "elsewhere" / "file").write_text("")
    (tmp_path / "mounted" / "current").symlink_to(tmp_path / "versions" / "1")
    found = folders_of(tmp_path / "mounted" / "current" / "file")
    assert found >= {tmp_path / "mounted", tmp_path / "versions" / "1"}
    assert tmp_path not in found
