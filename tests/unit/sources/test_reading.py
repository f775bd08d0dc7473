from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.sources import helper, reading
from controlplane.sources.changes import Changes
from controlplane.sources.files import FileSource
from controlplane.sources.folder import sign
from tests.unit.sources.manifests import config_map, write

_DOCUMENTS = (
    *(config_map(name, value).encode() for name in ("one", "two", "three") for value in ("1", "2")),
    b"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: listed}}\n- 5\n",
    b"a: &a {x: 1}\nb: [*a, *a]\n",
    b"a: [1, 2\n",
    b"a: 1\na: 2\n",
    b"\xff\xfe\n",
    b"# nothing but this\n",
    b"",
    b"just text\n",
    b"apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n",
    b"a: !custom 1\n",
)
_NAMES = ("a.yaml", "b.yml", "dir/a.yaml", "dir-b/a.yaml", "c.json", "gone.yaml", "folder.yaml/x.yaml")
_folders = st.dictionaries(st.sampled_from(_NAMES), st.lists(st.sampled_from(_DOCUMENTS), max_size=6))


def read_by_helpers(folder: Path, *, helpers: int = 2) -> Changes:
    begun = reading.start(str(folder), helpers=helpers)
    assert begun is not None
    return FileSource(folder, reading=begun).read()


def many(folder: Path, count: int) -> None:
    for number in range(count):
        write(folder / f"{number:03}.yaml", config_map(f"map-{number}"))


@given(files=_folders)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_helpers_give_exactly_what_one_process_reads(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, list[bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("manifests")
    for name, documents in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"---\n".join(documents))
    assert read_by_helpers(folder) == FileSource(folder).read()


def test_a_file_of_many_documents_is_shared_and_put_together_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [config_map(f"map-{number}", "x" * 3000) for number in range(500)]
    texts[7:8] = ["# blank\n", "a: [\n", texts[0]]
    write(tmp_path / "all.yaml", *texts)
    assert (tmp_path / "all.yaml").stat().st_size > 1024 * 1024
    at_once = read_by_helpers(tmp_path, helpers=3)
    monkeypatch.setattr(reading, "helpers_here", lambda: 0)
    assert at_once == FileSource(tmp_path).read()
    assert len(at_once.upserted) == 499
    assert [(fault.line, fault.message[:30]) for fault in at_once.faults] == [
        (53, "while parsing a flow node, did"),
        (54, "ConfigMap default/map-0 is alr"),
    ]


def test_files_that_cannot_be_read_are_the_same_faults(tmp_path: Path) -> None:
    many(tmp_path, 3)
    write(tmp_path / "big.yaml", config_map("big", "x" * 10_000))
    (tmp_path / "closed.yaml").symlink_to("/proc/self/mem")
    (tmp_path / "locked").mkdir(mode=0)
    begun = reading.start(str(tmp_path), helpers=2, max_file_bytes=4096)
    changes = FileSource(tmp_path, max_file_bytes=4096, reading=begun).read()
    assert changes == FileSource(tmp_path, max_file_bytes=4096).read()
    assert "larger than" in str(changes.faults)


def test_a_file_that_changes_after_it_was_read_is_read_anew(tmp_path: Path) -> None:
    many(tmp_path, 20)
    begun = reading.start(str(tmp_path), helpers=2)
    assert begun is not None
    first = str(tmp_path / "000.yaml")
    signature = sign(first)
    assert signature is not None
    assert begun.content(first, signature) is not None
    write(tmp_path / "005.yaml", config_map("map-5", "new"))
    (tmp_path / "006.yaml").unlink()
    write(tmp_path / "new.yaml", config_map("new"))
    changes = FileSource(tmp_path, reading=begun).read()
    assert changes == FileSource(tmp_path).read()
    assert {raw.key.name: raw.document["data"] for raw in changes.upserted}["map-5"] == {"key": "new"}


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_helper_that_dies_or_hangs_was_to_read_is_read_without_it(tmp_path: Path, what: signal.Signals) -> None:
    many(tmp_path, 40)
    begun = reading.start(str(tmp_path), helpers=2, patience_s=0.3)
    assert begun is not None
    process = next(iter(begun._helpers.values())).process
    os.kill(process.pid, what)
    assert FileSource(tmp_path, reading=begun).read() == FileSource(tmp_path).read()
    assert process.returncode is not None


def test_a_helper_that_says_something_else_is_not_believed(tmp_path: Path) -> None:
    many(tmp_path, 4)
    begun = reading.start(str(tmp_path), helpers=1)
    assert begun is not None
    (one,) = begun._helpers.values()
    one.received += b"Traceback (most recent call last)"
    assert FileSource(tmp_path, reading=begun).read() == FileSource(tmp_path).read()


def test_a_helper_whose_reader_is_gone_ends(tmp_path: Path) -> None:
    write(tmp_path / "big.yaml", config_map("big", "x" * 2_000_000))
    begun = reading.start(str(tmp_path), helpers=1)
    assert begun is not None
    (one,) = begun._helpers.values()
    assert one.process.stdout is not None
    one.process.stdout.close()
    assert one.process.wait(20) == 0


def test_no_helper_is_left_behind(tmp_path: Path) -> None:
    many(tmp_path, 4)
    begun = reading.start(str(tmp_path), helpers=2)
    assert begun is not None
    processes = [each.process for each in begun._helpers.values()]
    FileSource(tmp_path, reading=begun).read()
    assert [each.returncode is None for each in processes] == [False, False]


def test_data_too_deep_to_be_handed_over_is_read_by_who_asks(tmp_path: Path) -> None:
    deep = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "deep"}})
    (tmp_path / "deep.json").write_text(deep[:-1] + ', "x": ' + "[" * 900 + "]" * 900 + "}")
    assert read_by_helpers(tmp_path) == FileSource(tmp_path).read()


def test_helpers_are_for_big_folders_and_several_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "helpers_here", lambda: 2)
    many(tmp_path, 10)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "000-nowhere.yaml").symlink_to(tmp_path / "none")
    monkeypatch.setattr(reading, "BIG_FILES", 11)
    assert reading.begin(tmp_path) is None
    assert reading.begin(tmp_path / "none") is None
    monkeypatch.setattr(reading, "BIG_FILES", 10)
    begun = reading.begin(tmp_path)
    assert begun is not None
    begun.close()
    monkeypatch.setattr(reading, "helpers_here", lambda: 0)
    assert reading.begin(tmp_path) is None


def test_what_runs_in_a_helper_needs_no_models() -> None:
    heavy = ("pydantic", "google", "grpc", "asyncio")
    code = f"import sys, {helper.__name__}; print([each for each in {heavy} if each in sys.modules])"
    done = subprocess.run((sys.executable, "-P", "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
