from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controlplane.sources.blocks import Other, read_blocks
from controlplane.sources.documents import DocumentError, parse_by_libyaml, parse_yaml

MANIFEST = """\
# what generators write
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: route-7
  namespace: bench
  annotations:
    nginx.ingress.kubernetes.io/rewrite-target: /$2
    empty: ''
spec:
  parentRefs:
  - name: edge   # the one
    port: 8080
  hostnames:
    - "h0.example.com"
    - 'h1.example.com'

  rules:
  - matches:
    - path:
        type: PathPrefix
        value: /r7
      headers: []
    timeouts: {}
    backendRefs:
    - name: backend-7
      port: 80
      weight:
  - backendRefs:
    - {name}
"""
_SIMPLE = MANIFEST.replace("    - {name}\n", "    - name: b:c#d e\n")
_SCALARS = (
    *("a", "a b", "a:b", "a: b", "a:", "a #b", "a#b", "# a", "-1", "- 1", "-", "--", "---", "...", "?", "? a", "&a b"),
    *(
        "*a",
        "!a b",
        "|",
        ">",
        "'a'",
        "'a''b'",
        "'a' b",
        "'",
        '"a"',
        '"a\\n"',
        '"',
        "{}",
        "[]",
        "{a: b}",
        "[a]",
        "{",
        "]",
    ),
    *("%a", "@a", "`a", "~", "null", "yes", "0x1F", "017", "1e3", "1_0", ".5", "2026-01-01", "<<", "=", "<a", "a\tb"),
    *(
        "é",
        "a\u2028b",
        "\x07",
        "a " + "b" * 1100,
        "k" * 130 + ": v",
        "k" * 1030 + ": v",
        "/a",
        "$(b)",
        "^/a|b$",
        "(a)",
        "",
    ),
)
_lines = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", " ", "  ", "  ", "    ", "      ", "\t"]),
        st.sampled_from(["", "", "", "- ", "- ", "-", "-  ", "- - "]),
        st.sampled_from(
            ["a: ", "b: ", "c:", "d:", "d: ", "a.b/c-d: ", "yes: ", "null:", "1: ", "'q': ", "<<: ", "", "e:  "]
        ),
        st.sampled_from(_SCALARS),
        st.sampled_from(["", "", "", " ", " # c", "#c", "  # c: d", ":", "\r"]),
    ),
)
_plain_lines = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "  ", "    "]),
        st.sampled_from(["", "", "- "]),
        st.sampled_from(["a:", "b:", "c: x", "d: 1", "x"]),
    ),
)
_texts = st.lists(_lines, max_size=5) | st.lists(_plain_lines, max_size=9) | st.lists(_lines | _plain_lines, max_size=7)


def is_what_libyaml_finds(text: str) -> bool:
    """Whether the short way gives nothing, or the very same as the long one."""
    short = read_blocks(text)
    if short is Other:
        return True
    try:
        # `repr` tells 1 from True and from 1.0, and one order of keys from another.
        return repr(short) == repr(parse_by_libyaml(text))
    except (DocumentError, yaml.YAMLError):
        return False


@given(_texts.map("\n".join))
@settings(max_examples=1500, deadline=None)
@example("a:\n- x\n- y\nb: 1")
@example("a:\n  - x\n  b: 1")
@example("- a\n- b")
@example("a:\n  b:\n- x")
@example("a: 1\n  b: 2")
@example("a: x\n  y")
@example("- a:\n  - x")
@example("a:\n- b:\n  - c\n- d: 1\n  e:\n    f: 1\ng: 2")
@example("a: 1\n...\nb: 1")
@example("a: 1\na: 2")
def test_what_is_read_the_short_way_is_what_libyaml_finds(text: str) -> None:
    assert is_what_libyaml_finds(text)


@given(
    at=st.integers(0, len(_SIMPLE)), cut=st.integers(0, 3), put=st.sampled_from(list(" \n\t-:#'\"{}[],&*!|>%@`?xé\r"))
)
@settings(max_examples=1000, deadline=None)
def test_a_slip_of_the_pen_is_what_libyaml_makes_of_it(at: int, cut: int, put: str) -> None:
    assert is_what_libyaml_finds(_SIMPLE[:at] + put + _SIMPLE[at + cut :])


_names = st.text(st.characters(codec="ascii"), max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | _names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_names, _values, max_size=4), st.booleans())
@settings(max_examples=500, deadline=None)
def test_what_yaml_writes_is_what_libyaml_finds(value: object, indented: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=False, width=10_000, indent=4 if indented else 2)
    assert is_what_libyaml_finds(text)


def test_what_generators_write_is_read_the_short_way() -> None:
    assert read_blocks(MANIFEST) is Other
    assert read_blocks(_SIMPLE) == parse_by_libyaml(_SIMPLE)
    assert parse_yaml(_SIMPLE.encode()) == parse_by_libyaml(_SIMPLE)


def test_empty_values_are_not_shared_between_documents() -> None:
    first, second = read_blocks("a: {}\nb: []"), read_blocks("a: {}\nb: []")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["a"] is not second["a"]
    assert first["b"] is not second["b"]


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "just text", "- a\n- b\n", "{}", "a: &x 1\nb: *x\n", "a: |\n  b\n"]
)
def test_what_is_less_simple_is_left_to_libyaml(text: str) -> None:
    assert read_blocks(text) is Other


def test_deep_nesting_is_left_to_libyaml() -> None:
    text = "\n".join(f"{'  ' * depth}a:" for depth in range(63))
    assert read_blocks(text) is Other
    with pytest.raises(DocumentError, match="nested more than 64 deep"):
        parse_yaml("\n".join(f"{'  ' * depth}a:" for depth in range(70)).encode())
