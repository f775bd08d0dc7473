"""The table of features names what is there, and leaves nothing out that is shown."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "features.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| feature")
]


def linked(column: int | None = None) -> set[Path]:
    """The files that the table names, in one column or in all."""
    text = "\n".join(cell for row in ROWS for cell in (row if column is None else row[column : column + 1]))
    return {(PAGE.parent / path.partition("#")[0]).resolve() for path in re.findall(r"\]\(([^)]+)\)", text)}


def test_every_row_says_since_when_and_where_it_is_shown() -> None:
    assert ROWS
    for row in ROWS:
        assert len(row) == 6, row
        assert re.fullmatch(r"\d+\.\d+", row[1]), row
        assert "](" in row[2] + row[3], row


def test_every_file_that_the_table_names_exists() -> None:
    assert [path for path in linked() if not path.exists()] == []


def test_every_golden_pair_stands_in_the_table() -> None:
    assert linked(2) == set((ROOT / "tests" / "unit" / "golden").glob("*.out.yaml"))


def test_every_example_stands_in_the_table() -> None:
    assert linked(4) == {path.parent for path in (ROOT / "examples").glob("*/*.yaml")}
