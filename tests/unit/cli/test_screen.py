from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from controlplane.status.report import Finding
from dragoman.cli.screen import Screen

PATH = Finding(
    "shop/shop.yaml", 31, "HTTPRoute shop/orders", "spec.rules[0].path", "expected a path that starts with '/'"
)
SYNTAX = Finding("shop/shop.yaml", 34, "", "", "found unexpected end of stream")


class Terminal:
    """A Screen, and what it has printed since it was last asked."""

    def __init__(self) -> None:
        self._out = StringIO()
        self.screen = Screen(Console(file=self._out, width=200))

    def tells(self, *found: Finding) -> list[str]:
        self.screen.findings(found)
        text = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return text.splitlines()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def moved(finding: Finding, line: int) -> Finding:
    return Finding(finding.file, line, finding.object, finding.field, finding.message)


def test_a_fault_is_told_when_it_comes_and_when_it_goes(terminal: Terminal) -> None:
    assert terminal.tells(PATH) == [f"✗ {PATH}"]
    assert terminal.tells(PATH) == []
    assert terminal.tells() == ["✓ HTTPRoute shop/orders spec.rules[0].path is mended"]


def test_a_fault_that_is_on_another_line_is_neither_new_nor_mended(terminal: Terminal) -> None:
    terminal.tells(PATH)
    assert terminal.tells(moved(PATH, 32)) == []
    assert terminal.tells() == ["✓ HTTPRoute shop/orders spec.rules[0].path is mended"]


def test_a_field_with_another_fault_is_not_called_mended(terminal: Terminal) -> None:
    terminal.tells(PATH)
    other = Finding(PATH.file, PATH.line, PATH.object, PATH.field, "expected a string")
    assert terminal.tells(other) == [f"✗ {other}"]


def test_what_is_wrong_in_a_file_that_cannot_be_read_is_not_called_mended(terminal: Terminal) -> None:
    terminal.tells(PATH)
    assert terminal.tells(SYNTAX) == [f"✗ {SYNTAX}"]
    assert terminal.tells(moved(PATH, 33)) == ["✓ shop/shop.yaml is mended"]
    terminal.tells(SYNTAX)
    assert terminal.tells() == [
        "✓ HTTPRoute shop/orders spec.rules[0].path is mended",
        "✓ shop/shop.yaml is mended",
    ]
