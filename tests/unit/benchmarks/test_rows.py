"""Figures are told by what they are and by size, and a run that was cut off is gone on with."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.rows import Row, by_size, read_json, write_json, write_markdown

ROWS = [
    Row.at(100, "one of N changed", 1.5, "ms", {1_000: 2.0}),
    Row.at(1_000, "one of N changed", 2.5, "ms", {1_000: 2.0}),
    Row("requests that failed", 0.0, "requests", 0.0),
]


def test_a_figure_at_a_size_has_its_number_in_its_name_and_its_budget() -> None:
    small, big, flat = ROWS
    assert (small.name, small.kept) == ("one of 100 changed", None)
    assert (big.name, big.kept) == ("one of 1000 changed", False)
    assert (flat.kept, flat.size) == (True, None)


def test_figures_at_several_sizes_stand_side_by_side() -> None:
    sizes, lines = by_size(ROWS)
    assert sizes == [100, 1_000]
    assert [row.value for row in lines["one of N changed", "ms"].values()] == [1.5, 2.5]


def test_a_page_gets_a_column_a_size_and_the_others_below(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    write_markdown(ROWS, page, mark="figures")
    text = page.read_text()
    assert "| one of N changed | 1.50 | **2.50** | ms | ≤ 2 at 1,000 |" in text
    assert "| requests that failed | 0.00 | requests | ≤ 0 | yes |" in text
    assert "old" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")


def test_what_was_measured_at_this_commit_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    write_json({"a part": ROWS}, path)
    assert read_json(path) == {"a part": ROWS}
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"commit": "another"}))
    assert read_json(path) == {}
    assert read_json(tmp_path / "none.json") == {}
