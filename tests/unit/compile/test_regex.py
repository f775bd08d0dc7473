"""Regular expressions are accepted if Envoy's engine accepts them, which sees bytes."""

from __future__ import annotations

import pytest

from controlplane.compile.regex import fault_of, groups_of


@pytest.mark.parametrize("pattern", ["/a.*", "(?i)/é[a-z]+", r"/\pN", r"/\x{FF}"])
def test_what_envoy_takes_is_accepted(pattern: str) -> None:
    assert fault_of(pattern) is None


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", r"\1", r"/\x{100}"])
def test_what_envoy_refuses_is_a_fault_that_says_why(pattern: str) -> None:
    assert fault_of(pattern)


def test_groups_are_counted() -> None:
    assert groups_of("(a)(?:b)(?P<c>d)") == 2
