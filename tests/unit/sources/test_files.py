from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from controlplane.api.meta import ObjectKey
from controlplane.sources.changes import Changes
from controlplane.sources.files import FileSource
from tests.unit.sources.manifests import config_map, key, write


def names(changes: Changes) -> list[str]:
    return [raw.key.name for raw in changes.upserted]


def test_manifests_are_read_from_all_folders_below(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", config_map("one"), config_map("two"))
    write(tmp_path / "team" / "deep" / "b.yml", config_map("three"))
    (tmp_path / "c.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "four", "namespace": "x"}})
    )
    changes = FileSource(tmp_path).read()
    assert sorted(names(changes)) == ["four", "one", "three", "two"]
    assert changes.complete
    assert changes.faults == ()
    by_name = {raw.key.name: raw for raw in changes.upserted}
    assert by_name["four"].key == ObjectKey("", "ConfigMap", "x", "four")
    assert by_name["two"].origin.file == str(tmp_path / "a.yaml")
    assert (by_name["two"].origin.document_index, by_name["two"].origin.line) == (1, 8)
    assert by_name["one"].document["data"] == {"key": "1"}


@pytest.mark.parametrize(
    "name", [".hidden.yaml", "a.yaml~", "#a.yaml#", ".a.yaml.swp", "a.txt", ".git/a.yaml", "~a.yaml", "a.yaml.bak"]
)
def test_hidden_files_and_those_of_editors_do_not_count(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("not: [yaml")
    assert FileSource(tmp_path).read() == Changes()


def test_items_of_a_list_are_objects_of_their_own(tmp_path: Path) -> None:
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in ("a", "b")]
    (tmp_path / "list.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    typed = {"apiVersion": "v1", "kind": "SecretList", "items": [{"metadata": {"name": "c"}}]}
    (tmp_path / "typed.json").write_text(json.dumps(typed))
    changes = FileSource(tmp_path).read()
    assert sorted((raw.key.kind, raw.key.name, raw.origin.prefix) for raw in changes.upserted) == [
        ("ConfigMap", "a", "items[0]"),
        ("ConfigMap", "b", "items[1]"),
        ("Secret", "c", "items[0]"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\n---\nb: [\n", 4, "did not find expected node content"),
        ("apiVersion: v1\nkind: ConfigMap\nkind: Secret\n", 3, "duplicate key 'kind'"),
        ("- a\n", 1, "expected a mapping with apiVersion, kind and metadata"),
        ("just text\n", 1, "expected a mapping"),
        ("kind: ConfigMap\nmetadata: {name: a}\n", 1, "apiVersion: required field is missing"),
        ("apiVersion: v1\nmetadata: {name: a}\n", 1, "kind: required field is missing"),
        ("apiVersion: v1\nkind: ConfigMap\n", 1, "metadata: required field is missing"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", 1, "metadata.name: required field is missing"),
        ("apiVersion: v1\nkind: List\nitems:\n- 5\n", 1, r"items\[0\]: expected a mapping"),
    ],
)
def test_what_cannot_be_read_is_a_fault_with_file_and_line_and_nothing_else_is_disturbed(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    bad = write(tmp_path / "bad.yaml", text)
    write(tmp_path / "good.yaml", config_map("good"))
    changes = FileSource(tmp_path).read()
    assert names(changes) == ["good"]
    assert changes.complete
    fault = next(fault for fault in changes.faults if fault.line == line)
    assert fault.file == str(bad)
    assert re.search(message, fault.message), fault


def test_the_documents_beside_a_malformed_one_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", config_map("one"), "b: [\n", config_map("three"))
    changes = FileSource(tmp_path).read()
    assert names(changes) == ["one", "three"]
    assert [(fault.line, fault.column) for fault in changes.faults] == [(9, 1)]


def test_a_file_that_is_too_large_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", config_map("one"))
    write(tmp_path / "b.yaml", config_map("two", "x" * 5000))
    changes = FileSource(tmp_path, max_file_bytes=4096).read()
    assert names(changes) == ["one"]
    assert "larger than" in changes.faults[0].message


def test_of_an_object_that_is_written_twice_the_first_in_path_order_counts(tmp_path: Path) -> None:
    write(tmp_path / "a-b.yaml", config_map("same", "late"))
    write(tmp_path / "a" / "z.yaml", config_map("same", "first"), config_map("same", "again"))
    changes = FileSource(tmp_path).read()
    assert [raw.document["data"] for raw in changes.upserted] == [{"key": "first"}]
    first = f"{tmp_path}/a/z.yaml:1"
    assert [(fault.file, fault.line, fault.message) for fault in changes.faults] == [
        (f"{tmp_path}/a-b.yaml", 1, f"ConfigMap default/same is already defined at {first}"),
        (f"{tmp_path}/a/z.yaml", 8, f"ConfigMap default/same is already defined at {first}"),
    ]


def test_links_are_followed_once(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / "dir" / "a.yaml", config_map("one"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside / "dir")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.yaml").symlink_to(outside / "none.yaml")
    changes = FileSource(folder).read()
    assert names(changes) == ["one"]
    assert changes.faults == ()


def test_a_pipe_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert FileSource(tmp_path).read() == Changes()


def test_a_folder_that_is_not_there_is_an_incomplete_read(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "none")
    changes = source.read()
    assert not changes.complete
    assert changes.faults[0].file == str(tmp_path / "none")


def test_reading_again_says_what_is_gone(tmp_path: Path) -> None:
    gone = write(tmp_path / "a.yaml", config_map("one"))
    write(tmp_path / "b.yaml", config_map("two"))
    source = FileSource(tmp_path)
    source.read()
    gone.unlink()
    changes = source.read()
    assert names(changes) == ["two"]
    assert changes.removed == (key("one"),)


def test_values_of_secrets_are_in_no_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {key: 'hunter2, b: [}\n")
    changes = FileSource(tmp_path).read()
    assert changes.faults
    assert "hunter2" not in str(changes.faults)
