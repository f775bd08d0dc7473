from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.sources.documents import MAX_ALIASED_NODES, DocumentError, parse_json, parse_yaml, split


def _is_number(text: str) -> bool:
    """PyYAML writes `0E0` as it is; to Kubernetes it is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


# PyYAML writes these as they are; to Kubernetes they are booleans.
texts = st.text(max_size=12).filter(lambda text: text not in ("y", "Y", "n", "N") and not _is_number(text))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_yaml_wrote_is_read_back(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value).encode()) == value


@given(st.lists(json_values.filter(lambda value: value is not None), max_size=5))
def test_documents_are_told_apart_by_their_separators(values: list[Any]) -> None:
    text = yaml.safe_dump_all(values, explicit_start=True)
    assert [parse_yaml(chunk.data) for chunk in split(text.encode()) if not chunk.blank] == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("~", None),
        ("", None),
        ("0777", 0o777),
        ("0x1F", 31),
        ("-12", -12),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3.4", "1.2.3.4"),
        ("0899", 899.0),
        ("'yes'", "yes"),
        ('"8080"', "8080"),
        ("!!str 8080", "8080"),
        ("1" * 50, "1" * 50),
    ],
)
def test_scalars_mean_what_they_mean_to_kubernetes(text: str, value: object) -> None:
    assert parse_yaml(text.encode()) == value


def test_keys_that_are_not_strings_become_what_json_makes_of_them() -> None:
    assert parse_yaml(b"{8080: a, on: b, 1.5: c, ~: d}") == {"8080": "a", "true": "b", "1.5": "c", "null": "d"}


def test_anchors_and_merge_keys_are_followed() -> None:
    text = b"a: &a {x: 1, w: 1}\nb: &b {w: 2}\nc: {<<: [*b, *a], z: 3}\nd: *a"
    assert parse_yaml(text) == {
        "a": {"x": 1, "w": 1},
        "b": {"w": 2},
        "c": {"x": 1, "w": 2, "z": 3},
        "d": {"x": 1, "w": 1},
    }


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", 3, 2, "while parsing a flow sequence"),
        (b"a: 1\n\tb: 2\n", 2, 1, "found a tab character"),
        (b"a:\n  b: 1\n  c: 2\n  b: 3\n", 4, 3, "duplicate key 'b'"),
        (b"a: !custom 1\n", 1, 4, "tag '!custom' is not supported"),
        (b"a: !!binary aGk=\n", 1, 4, "not supported"),
        (b"a: *b\n", 1, 4, "alias *b has no anchor"),
        (b"a: &a [*a]\n", 1, 8, "alias *a has no anchor"),
        (b"? [a]\n: 1\n", 1, 3, "expected a key that is a string"),
        (b"a: {<<: 5}\n", 1, 5, "expected a mapping"),
        (b"a: 1\n...\nb: 1\n", 3, 1, "did not find expected <document start>"),
        (b"a: 1\nb: \xff\n", 2, 0, "not UTF-8"),
        (b"a: \x00\n", 1, 0, "not YAML"),
        (b"[" * 100 + b"]" * 100, 1, 65, "nested more than 64 deep"),
    ],
)
def test_a_fault_names_its_line_and_column(text: bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(DocumentError) as raised:
        parse_yaml(text)
    assert message in raised.value.message
    assert (raised.value.line, raised.value.column) == (line, column)


def test_aliases_cannot_blow_a_document_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(DocumentError, match=str(MAX_ALIASED_NODES)) as raised:
        parse_yaml("\n".join(lines).encode())
    assert raised.value.line > 1


def test_comments_directives_and_empty_documents_give_nothing() -> None:
    text = b"\xef\xbb\xbf%YAML 1.1\n# a comment\n---\n---\n# only this\n---  # and this\na: 1\n--- {b: 2}\n"
    chunks = [chunk for chunk in split(text) if not chunk.blank]
    assert [(chunk.line, parse_yaml(chunk.data)) for chunk in chunks] == [(7, {"a": 1}), (8, {"b": 2})]


def test_a_separator_inside_a_block_of_text_is_text() -> None:
    text = b"data: |\n  ---\n  x\n"
    assert [parse_yaml(chunk.data) for chunk in split(text)] == [{"data": "---\nx\n"}]


def test_windows_line_ends_are_read_too() -> None:
    assert [parse_yaml(chunk.data) for chunk in split(b"a: 1\r\n---\r\nb: 2\r\n")] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b'{"a": 1,\n "b": }', 2, "Expecting value"),
        (b'{"a": 1, "a": 2}', 1, "duplicate key 'a'"),
        (b'{"a": NaN}', 1, "NaN"),
        (b"[" * 100_000, 1, "nested too deeply"),
        (b'{"a": "\xff"}', 1, "not UTF-8"),
        (b'{"a": ' + b"1" * 5000 + b"}", 1, "digits"),
    ],
)
def test_json_is_held_to_the_same(text: bytes, line: int, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as raised:
        parse_json(text)
    assert raised.value.line == line
