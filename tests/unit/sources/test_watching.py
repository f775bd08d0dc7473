from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controlplane.sources.changes import Changes
from controlplane.sources.files import FileSource
from controlplane.sources.watching import Notifier
from tests.support.waiting import until
from tests.unit.sources.manifests import config_map, key, write


class Watched:
    """A source that is watched, and what it has said so far."""

    def __init__(self) -> None:
        self.said: list[Changes] = []
        self.values: dict[str, str] = {}

    def take(self, changes: Changes) -> None:
        self.said.append(changes)
        for raw in changes.upserted:
            data = raw.document["data"]
            assert isinstance(data, dict)
            self.values[raw.key.name] = data["key"]
        for gone in changes.removed:
            del self.values[gone.name]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await until(lambda: bool(condition()), what=what, detail=lambda: repr(self.said[-3:]))


@asynccontextmanager
async def watched(folder: Path, *, notifier: Notifier = "auto", grace_s: float = 0.05) -> AsyncIterator[Watched]:
    source, state, stop = FileSource(folder, notifier=notifier, grace_s=grace_s), Watched(), asyncio.Event()
    state.take(source.read())

    async def watch() -> None:
        async for changes in source.watch(stop):
            state.take(changes)

    task = asyncio.create_task(watch())
    try:
        # That watching has begun shows in a file that nothing else is about.
        probe = write(folder / "zz-probe.yaml", config_map("probe"))
        await state.until(lambda: "probe" in state.values, "watching to begin")
        write(probe, "# empty now\n")
        await state.until(lambda: "probe" not in state.values, "the probe to go")
        del state.said[1:]
        yield state
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def move(old: Path, new: Path) -> None:
    old.rename(new)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "in" / "a.yaml", config_map("one"), config_map("two"), config_map("three"))
    return tmp_path / "in"


async def test_a_changed_document_is_the_only_one_that_is_parsed_again(folder: Path) -> None:
    async with watched(folder) as state:
        write(folder / "a.yaml", config_map("one"), config_map("two", "2"), config_map("three"))
        await state.until(lambda: len(state.said) > 1, "the change")
    assert [raw.key for raw in state.said[1].upserted] == [key("two")]
    assert state.said[1].removed == ()


async def test_documents_that_only_moved_say_nothing(folder: Path) -> None:
    async with watched(folder) as state:
        write(folder / "a.yaml", "# a comment\n" * 3, config_map("three"), config_map("one"), config_map("two"))
        write(folder / "b.yaml", config_map("four"))
        await state.until(lambda: "four" in state.values, "the new file")
    assert [raw.key.name for changes in state.said[1:] for raw in changes.upserted] == ["four"]


async def test_files_come_and_go(folder: Path) -> None:
    async with watched(folder) as state:
        write(folder / "new" / "deep" / "b.yaml", config_map("four"))
        await state.until(lambda: "four" in state.values, "a file in a new folder")
        (folder / "a.yaml").unlink()
        await state.until(lambda: set(state.values) == {"four"}, "the removal")
        (folder / "new").rename(folder / "renamed")
        write(folder / "renamed" / "deep" / "b.yaml", config_map("four", "4"))
        await state.until(lambda: state.values == {"four": "4"}, "a change in a renamed folder")
        shutil.rmtree(folder / "renamed")
        await state.until(lambda: state.values == {}, "the removal of the folder")


async def test_a_file_that_is_being_written_is_not_looked_at_until_it_is_closed(folder: Path) -> None:
    async with watched(folder) as state:
        with (folder / "a.yaml").open("w") as file:
            file.write(config_map("one", "half"))
            file.flush()
            write(folder / "new" / "b.yaml", config_map("four"))
            await state.until(lambda: "four" in state.values, "another file, in a new folder")
            assert state.values == {"one": "1", "two": "1", "three": "1", "four": "1"}
            file.write("---\n" + config_map("two") + "---\n" + config_map("three"))
        await state.until(lambda: state.values["one"] == "half", "the whole file")
    assert [key for changes in state.said for key in changes.removed] == []


async def test_what_a_file_gave_stays_while_it_is_malformed(folder: Path) -> None:
    async with watched(folder) as state:
        write(folder / "a.yaml", config_map("one", "new"), "two: [\n", config_map("four"))
        await state.until(lambda: state.said[-1].faults, "the fault")
        assert state.values == {"one": "new", "two": "1", "three": "1", "four": "1"}
        fault = state.said[-1].faults[0]
        assert (fault.file, fault.line, fault.column) == (str(folder / "a.yaml"), 9, 1)
        write(folder / "a.yaml", config_map("one", "new"), config_map("four"))
        await state.until(lambda: not state.said[-1].faults, "the repair")
        assert state.values == {"one": "new", "four": "1"}


async def test_the_second_place_of_an_object_takes_over_when_the_first_goes(folder: Path) -> None:
    write(folder / "b.yaml", config_map("two", "b"))
    async with watched(folder) as state:
        assert len(state.said[0].faults) == 1
        write(folder / "a.yaml", config_map("one"), config_map("three"))
        await state.until(lambda: state.values["two"] == "b", "the second place")
        assert state.said[-1].faults == ()
        write(folder / "a.yaml", config_map("two", "a"))
        await state.until(lambda: state.values == {"two": "a"}, "the first place, back again")
        assert len(state.said[-1].faults) == 1


async def test_a_folder_that_vanishes_takes_nothing_with_it(folder: Path) -> None:
    async with watched(folder) as state:
        move(folder, folder.parent / "moved")
        await state.until(lambda: not state.said[-1].complete, "the incomplete read")
        assert set(state.values) == {"one", "two", "three"}
        move(folder.parent / "moved", folder)
        await state.until(lambda: state.said[-1].complete, "the folder's return")
        write(folder / "a.yaml", config_map("one", "back"))
        await state.until(lambda: state.values == {"one": "back"}, "a change in the folder that came back")


async def test_a_file_that_is_removed_and_written_anew_takes_nothing_with_it(folder: Path) -> None:
    async with watched(folder, grace_s=5) as state:
        move(folder / "a.yaml", folder / "a.yaml~")
        write(folder / "b.yaml", config_map("four"))
        await state.until(lambda: "four" in state.values, "a look at the folder without the file")
        assert set(state.values) == {"one", "two", "three", "four"}
        with (folder / "a.yaml").open("w") as file:
            file.write(config_map("one", "2") + "---\n" + config_map("two") + "---\n" + config_map("three"))
        await state.until(lambda: state.values["one"] == "2", "the file that came back")
    assert [key for changes in state.said for key in changes.removed] == []


async def test_objects_move_with_a_file_that_is_renamed(folder: Path) -> None:
    async with watched(folder, grace_s=5) as state:
        move(folder / "a.yaml", folder / "z.yaml")
        await state.until(lambda: len(state.said) > 1, "the rename")
        moved = {raw.key.name: raw.origin.file for raw in state.said[1].upserted}
        assert moved == dict.fromkeys(("one", "two", "three"), str(folder / "z.yaml"))
        write(folder / "z.yaml", config_map("one", "2"))
        await state.until(lambda: state.values == {"one": "2"}, "the change under the new name")
    assert [changes.faults for changes in state.said] == [()] * len(state.said)


async def test_a_config_map_that_kubernetes_mounts_is_seen_to_change(tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    write(folder / "..first" / "a.yaml", config_map("one"))
    (folder / "..data").symlink_to("..first")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    async with watched(folder) as state:
        assert state.values == {"one": "1"}
        write(folder / "..second" / "a.yaml", config_map("one", "2"))
        (folder / "..new").symlink_to("..second")
        (folder / "..new").rename(folder / "..data")
        await state.until(lambda: state.values == {"one": "2"}, "the swap")


async def test_a_file_behind_a_link_is_seen_to_change(folder: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "outside" / "b.yaml", config_map("four"))
    (folder / "b.yaml").symlink_to(target)
    async with watched(folder) as state:
        write(target, config_map("four", "4"))
        await state.until(lambda: state.values["four"] == "4", "the change behind the link")


async def test_a_new_link_is_a_new_file(folder: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "outside" / "b.yaml", config_map("four"))
    async with watched(folder) as state:
        (folder / "b.yaml").symlink_to(target)
        await state.until(lambda: "four" in state.values, "the link")
        (folder / "c.yaml").hardlink_to(target)
        await state.until(lambda: state.said[-1].faults, "the second name of the file")


async def test_what_changes_between_reading_and_watching_is_not_missed(folder: Path) -> None:
    source, stop = FileSource(folder), asyncio.Event()
    source.read()
    write(folder / "a.yaml", config_map("one", "2"))
    async for changes in source.watch(stop):
        assert [raw.key.name for raw in changes.upserted] == ["one"]
        assert changes.removed == (key("two"), key("three"))
        break


async def test_a_touched_file_says_nothing(folder: Path) -> None:
    async with watched(folder) as state:
        (folder / "a.yaml").touch()
        write(folder / "b.yaml", config_map("four"))
        await state.until(lambda: "four" in state.values, "the other file")
    assert [raw.key.name for changes in state.said[1:] for raw in changes.upserted] == ["four"]


@pytest.mark.parametrize("notifier", ["watchfiles", "polling"])
async def test_without_inotify_changes_are_seen_too(folder: Path, notifier: Notifier) -> None:
    async with watched(folder, notifier=notifier) as state:
        write(folder / "a.yaml", config_map("one", "2"))
        await state.until(lambda: state.values == {"one": "2"}, "the change")
        (folder / "a.yaml").unlink()
        await state.until(lambda: state.values == {}, "the removal")


async def test_many_files_at_once_all_arrive(folder: Path) -> None:
    async with watched(folder) as state:
        for number in range(300):
            write(folder / f"d{number % 7}" / f"{number}.yaml", config_map(f"n{number}"))
        await state.until(lambda: len(state.values) == 303, "300 files")
