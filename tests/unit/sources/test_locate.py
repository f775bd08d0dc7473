from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.sources.changes import Origin
from controlplane.sources.files import FileSource
from controlplane.sources.locate import line_of
from tests.unit.sources.manifests import config_map, write

ROUTE = """# a comment
apiVersion: v1
kind: ConfigMap
metadata:
  name: one
data:
  tls.crt: x
  list:
  - a: 1
    b: 2
  - {a: 3,
     c: [1, 2]}
  merged:
    <<: {inner: 5}
"""


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    write(tmp_path / "a.yaml", config_map("zero"), ROUTE)
    return next(raw.origin for raw in FileSource(tmp_path).read().upserted if raw.key.name == "one")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", 9),
        ("kind", 10),
        ("metadata.name", 12),
        ("data['tls.crt']", 14),
        ("data.list[0]", 16),
        ("data.list[0].b", 17),
        ("data.list[1].c[1]", 19),
        ("data.list[7].c", 15),
        ("data.missing.deeper", 13),
        ("spec.rules[0]", 9),
        ("data.merged.inner", 21),
    ],
)
def test_a_field_path_leads_to_its_line_or_that_of_the_nearest_parent(origin: Origin, path: str, line: int) -> None:
    assert line_of(origin, path) == line


def test_a_document_is_found_again_after_others_moved_it(origin: Origin) -> None:
    write(Path(origin.file), "# one more\n\n" + config_map("zero"), config_map("new"), ROUTE)
    assert line_of(origin, "metadata.name") == 12 + 9


def test_a_document_that_is_gone_has_the_line_that_it_had(origin: Origin) -> None:
    write(Path(origin.file), config_map("zero"))
    assert line_of(origin, "metadata.name") == origin.line
    Path(origin.file).unlink()
    assert line_of(origin, "metadata.name") == origin.line


def test_fields_of_items_of_a_list_are_found(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata:\n    name: a\n")
    raw = FileSource(tmp_path).read().upserted[0]
    assert line_of(raw.origin, "metadata.name") == 7


def test_fields_of_json_files_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"apiVersion": "v1",\n "kind": "Secret",\n "metadata": {\n  "name": "a"}}\n')
    raw = FileSource(tmp_path).read().upserted[0]
    assert line_of(raw.origin, "metadata.name") == 4
