"""What is followed is handed over whole, in order, and again where it was not taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dragoman.file_watch import Folders, folders_of
from dragoman.followed import Followed, keep_following
from tests.support.waiting import until


class Pair:
    """Two files that belong together."""

    def __init__(self, folder: Path) -> None:
        self.first, self.second = folder / "first", folder / "second"
        self.taken: list[str] = []
        self.between: Callable[[], None] = lambda: None
        """Happens after the first one is read."""
        self.fails = False
        self.followed: Followed[str] = Followed(self.first, self, self.take)

    def write(self, text: str) -> None:
        for file in (self.second, self.first):
            new = file.with_suffix(".new")
            new.write_text(text)
            new.rename(file)

    def state(self) -> tuple[int, int]:
        return self.first.stat().st_ino, self.second.stat().st_ino

    def folders(self) -> Folders:
        return folders_of(self.first)

    def read(self) -> tuple[tuple[int, int], str]:
        state = self.state()
        first = self.first.read_text()
        self.between()
        return state, first + self.second.read_text()

    async def take(self, found: str) -> None:
        if self.fails:
            raise RuntimeError("cannot be taken")
        self.taken.append(found)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.followed.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def pair(tmp_path: Path) -> Pair:
    made = Pair(tmp_path)
    made.write("a")
    await made.followed.load()
    assert made.taken == ["aa"]
    return made


async def test_what_was_swapped_while_it_was_read_is_read_once_more(pair: Pair) -> None:
    def swap() -> None:
        pair.between = lambda: None
        pair.write("c")

    pair.between = swap
    async with pair.following():
        pair.write("b")
        await until(lambda: "cc" in pair.taken, what="the change")
    # Never one of the one and one of the other.
    assert pair.taken in (["aa", "cc"], ["aa", "bb", "cc"])


async def test_what_could_not_be_taken_is_handed_over_again_to_who_follows_anew(pair: Pair) -> None:
    pair.fails = True
    pair.write("b")
    with pytest.raises(RuntimeError, match="cannot be taken"):
        await pair.followed.run()
    pair.fails = False
    async with pair.following():
        await until(lambda: pair.taken == ["aa", "bb"], what="the change")


async def test_changes_are_taken_in_their_order(pair: Pair) -> None:
    async with pair.following():
        for text in ("b", "c", "d"):
            pair.write(text)
            await until(lambda text=text: pair.taken[-1] == text * 2, what="the change")
    assert pair.taken == ["aa", "bb", "cc", "dd"]


async def test_what_follows_a_configuration_goes_on_after_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[float] = []

    async def run() -> None:
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR):
        following = asyncio.create_task(keep_following(run, again_after_s=0.001))
        await until(lambda: len(begun) == 2, what="the source to be followed anew")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert [record.exc_info is not None for record in caplog.records] == [True]
