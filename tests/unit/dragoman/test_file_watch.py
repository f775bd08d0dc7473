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
from dragoman.file_watch import Folders, folders_of, looks
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


@pytest.fixture(params=["_by_inotify", "_by_watchfiles"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has files watched as on Linux, or as elsewhere; the name of what does it."""
    monkeypatch.setattr(file_watch, "_by_inotify", getattr(file_watch, request.param))
    return "Inotify" if request.param == "_by_inotify" else "awatch"


@pytest.mark.parametrize("fault", [RuntimeError("Too many open files"), OSError("OS file watch limit reached.")])
async def test_files_are_looked_at_where_the_machine_has_no_watcher_to_give(
    how: str, fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watcher(*folders: Path, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr(file_watch, how, no_watcher)
    follower = Follower(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        async with follower.following():
            for text in ("once", "and again"):
                follower.file.write_text(text)
                await follower.reads(text)
    told = f"{follower.file} cannot be watched, and is looked at once a second: {fault}"
    assert [record.message for record in caplog.records].count(told) == 1


@pytest.mark.usefixtures("how")
async def test_folders_that_cannot_be_told_for_a_while_end_nothing(tmp_path: Path) -> None:
    faults = [PermissionError(13, "closed"), OSError(116, "stale file handle")]

    def folders() -> Folders:
        if faults:
            raise faults.pop()
        return folders_of(tmp_path / "file")

    found = looks(tmp_path / "file", folders)
    async with contextlib.aclosing(found), asyncio.timeout(30):
        while faults:
            await anext(found)
        await anext(found)


@pytest.mark.usefixtures("how")
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


async def test_a_change_is_seen_before_it_would_be_looked_for_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "_ANYWAY_S", 60.0)
    follower = Follower(tmp_path / "file")
    follower.file.write_text("at first")
    async with follower.following():
        await follower.reads("at first")
        for text in ("written", "and again"):
            follower.file.write_text(text)
            await follower.reads(text)
        (tmp_path / "new").write_text("replaced")
        (tmp_path / "new").rename(follower.file)
        await follower.reads("replaced")


async def test_a_busy_folder_is_not_looked_at_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "_BETWEEN_S", 0.2)
    began = asyncio.get_running_loop().time()
    found = looks(tmp_path / "file", lambda: folders_of(tmp_path / "file"))
    async with contextlib.aclosing(found):
        for number in range(4):
            await anext(found)
            (tmp_path / "another").write_text(str(number))
    assert asyncio.get_running_loop().time() - began >= 3 * 0.2


def test_where_links_lead_is_watched_too(tmp_path: Path) -> None:
    for name in ("mounted", "versions", "versions/1", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "versions" / "1" / "file").symlink_to(tmp_path / "elsewhere" / "file")
    (tmp_path / "elsewhere" / "file").write_text("")
    (tmp_path / "mounted" / "current").symlink_to(tmp_path / "versions" / "1")
    found = folders_of(tmp_path / "mounted" / "current" / "file")
    assert found >= {tmp_path / "mounted", tmp_path / "versions" / "1"}
    assert tmp_path not in found


async def test_who_is_cancelled_in_the_moment_of_a_change_ends(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "file")
    follower.file.write_text("")
    for number in range(20):
        looked = asyncio.Event()

        async def follow(looked: asyncio.Event = looked) -> None:
            async with contextlib.aclosing(looks(follower.file, lambda: folders_of(follower.file))) as found:
                async for _ in found:
                    looked.set()

        following = asyncio.create_task(follow())
        await looked.wait()
        # As a service does that removes its socket from the folder of its configuration.
        follower.file.write_text(str(number))
        for _ in range(number):
            await asyncio.sleep(0)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(following, 5)
