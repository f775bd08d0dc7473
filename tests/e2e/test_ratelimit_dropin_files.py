"""The limiter follows its files however they are replaced: as ConfigMaps, runtime links, editors and people do it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratelimit_service.main import Worker, worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.waiting import until


def limits_of(domain: str, limit: int) -> str:
    return f"domain: {domain}\ndescriptors:\n- key: k\n  rate_limit: {{unit: hour, requests_per_unit: {limit}}}\n"


def in_force(running: Worker) -> dict[str, int]:
    return {rule.domain: rule.requests_per_unit for rule in running.service.config.rules()}


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, config: Path, *, merge_domains: bool = False) -> AsyncIterator[Worker]:
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock", config=config, merge_domains=merge_domains, drain_s=0.1
    )
    async with worker(settings) as running:
        yield running


async def expect(running: Worker, expected: dict[str, int], what: str) -> None:
    await until(lambda: in_force(running) == expected, what=what, detail=lambda: str(in_force(running)))


class ConfigMap:
    """A folder as the kubelet mounts a ConfigMap: links to files of `..data`, a link that is swapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = 0
        folder.mkdir()

    def put(self, **files: str) -> None:
        self._versions += 1
        version = self.folder / f"..2026_11_21_{self._versions}"
        version.mkdir()
        for name, content in files.items():
            (version / name.replace("_", ".")).write_text(content)
        swapped = self.folder / "..data_tmp"
        swapped.symlink_to(version.name)
        old = self.folder / "..data"
        before = old.resolve() if old.is_symlink() else None
        os.replace(swapped, old)
        for name in (each.replace("_", ".") for each in files):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and not (version / link.name).exists():
                link.unlink()
        if before is not None:
            for file in before.iterdir():
                file.unlink()
            before.rmdir()


async def test_a_config_map_is_followed(tmp_path: Path) -> None:
    mounted = ConfigMap(tmp_path / "config")
    mounted.put(a_yaml=limits_of("a", 1), b_yaml=limits_of("b", 1))
    async with serving(tmp_path, mounted.folder) as running:
        assert in_force(running) == {"a": 1, "b": 1}
        mounted.put(a_yaml=limits_of("a", 2), b_yaml=limits_of("b", 2))
        await expect(running, {"a": 2, "b": 2}, "both new files")
        mounted.put(a_yaml=limits_of("a", 3), c=limits_of("c", 3))
        await expect(running, {"a": 3, "c": 3}, "a file less and one more, of a name without a suffix")


async def test_one_file_of_a_config_map_is_followed(tmp_path: Path) -> None:
    mounted = ConfigMap(tmp_path / "config")
    mounted.put(a_yaml=limits_of("a", 1))
    async with serving(tmp_path, mounted.folder / "a.yaml") as running:
        for limit in (2, 3):
            mounted.put(a_yaml=limits_of("a", limit))
            await expect(running, {"a": limit}, "the new file")


async def test_a_runtime_whose_current_link_is_swapped_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "runtime_data"

    def release(number: int) -> None:
        folder = root / "releases" / str(number) / "ratelimit" / "config"
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text(limits_of("a", number))
        (root / "next").symlink_to(root / "releases" / str(number))
        os.replace(root / "next", root / "current")

    root.mkdir()
    release(1)
    async with serving(tmp_path, root / "current" / "ratelimit" / "config") as running:
        assert in_force(running) == {"a": 1}
        release(2)
        await expect(running, {"a": 2}, "the second release")
        release(3)
        await expect(running, {"a": 3}, "the third release")
        (root / "releases/3/ratelimit/config/a.yaml").write_text(limits_of("a", 4))
        await expect(running, {"a": 4}, "a change within a release")


async def test_files_written_in_place_renamed_made_and_deleted_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "a.yaml").write_text(limits_of("a", 1))
    async with serving(tmp_path, folder) as running:
        (folder / "a.yaml").write_text(limits_of("a", 2))
        await expect(running, {"a": 2}, "a file written in place")
        (tmp_path / "new").write_text(limits_of("a", 3))
        os.replace(tmp_path / "new", folder / "a.yaml")
        await expect(running, {"a": 3}, "a file renamed into place")
        (folder / "team").mkdir()
        (folder / "team" / "b.yaml").write_text(limits_of("b", 1))
        await expect(running, {"a": 3, "b": 1}, "a file in a new folder")
        (folder / "team" / "b.yaml").write_text(limits_of("b", 2))
        await expect(running, {"a": 3, "b": 2}, "a change in that folder")
        (folder / "a.yaml").unlink()
        await expect(running, {"b": 2}, "the end of a file")


async def test_a_file_that_is_written_bit_by_bit_is_read_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    whole = limits_of("a", 9) + "".join(f"- key: k{n}\n  rate_limit: {{unlimited: true}}\n" for n in range(60))
    file.write_text(limits_of("a", 1))
    seen: set[int] = set()
    async with serving(tmp_path, file) as running:
        with file.open("w") as written:
            for line in whole.splitlines(keepends=True):
                written.write(line)
                written.flush()
                seen.add(len(list(running.service.config.rules())))
                await asyncio.sleep(0.002)
        await until(lambda: len(list(running.service.config.rules())) == 61, what="the whole file")
        assert seen == {1}
        assert running.service.rejections == 0


async def test_a_bad_change_is_told_by_file_and_line_and_what_was_good_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = ConfigMap(tmp_path / "config")
    mounted.put(a_yaml=limits_of("a", 1), b_yaml=limits_of("b", 1))
    with caplog.at_level(logging.ERROR):
        async with serving(tmp_path, mounted.folder) as running:
            mounted.put(a_yaml=limits_of("a", 2), b_yaml=limits_of("b", 2).replace("hour", "eon"))
            await until(lambda: running.service.rejected, what="the rejection")
            assert in_force(running) == {"a": 1, "b": 1}
            told = f"{mounted.folder}/b.yaml:4: descriptors[0].rate_limit.unit: 'eon' is none of"
            assert told in caplog.text
            assert told in str(running.service.rejected)
            mounted.put(a_yaml=limits_of("a", 2), b_yaml=limits_of("b", 2))
            await expect(running, {"a": 2, "b": 2}, "the repair")
            assert running.service.rejected is None


async def test_a_folder_that_goes_away_and_comes_back_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "a.yaml").write_text(limits_of("a", 1))
    async with serving(tmp_path, folder) as running:
        (folder / "a.yaml").rename(tmp_path / "kept")
        folder.rmdir()
        await until(lambda: running.service.rejected, what="the loss to be told")
        assert in_force(running) == {"a": 1}
        folder.mkdir()
        (folder / "a.yaml").write_text(limits_of("a", 2))
        await expect(running, {"a": 2}, "the folder that is back")


async def test_parts_of_a_domain_are_joined_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "1.yaml").write_text(limits_of("a", 1))
    (folder / "2.yaml").write_text(limits_of("a", 2).replace("key: k", "key: l"))
    async with serving(tmp_path, folder, merge_domains=True) as running:
        paths = {rule.path: rule.requests_per_unit for rule in running.service.config.rules()}
        assert paths == {"k": 1, "l": 2}
    async with serving(tmp_path, folder) as running:
        assert not running.service.ready
