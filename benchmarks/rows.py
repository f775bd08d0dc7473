"""What a measurement gives: rows of a name, a value and a unit, some with a budget that they must keep."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_NO_BUDGET: Final[Mapping[int, float]] = MappingProxyType({})
_SIZE: Final = re.compile(r"\bN\b")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `at_most` or `at_least` is its budget in the same unit, None where it is only reported.

    A figure that is measured at several sizes is called alike at all of them: `what`, and `size`, the number of routes.
    """

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    what: str = ""
    size: int | None = None

    @staticmethod
    def at(size: int, what: str, value: float, unit: str, budgets: Mapping[int, float] = _NO_BUDGET) -> Row:
        """Returns a figure at a number of routes, for which `what` has the letter N; `budgets` are by that number."""
        name = _SIZE.sub(str(size), what)
        return Row(name, value, unit, budgets.get(size), None, what, size)

    @property
    def kept(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def budget(self) -> str:
        """The budget in words; empty without one."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


def median_ms(times_s: Sequence[float]) -> float:
    """The median of times, in milliseconds."""
    return statistics.median(times_s) * 1000


def p95_ms(times_s: Sequence[float]) -> float:
    """The 95th percentile of times, in milliseconds."""
    return sorted(times_s)[max(0, round(len(times_s) * 0.95) - 1)] * 1000


def print_table(rows: Iterable[Row], console: Console) -> None:
    """Prints rows as a table, those over their budget in red."""
    table = Table(title="Dragoman, measured")
    for title, justify in (("what", "left"), ("value", "right"), ("unit", "left"), ("must be", "right"), ("", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left")
    for row in rows:
        verdict = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.kept]
        table.add_row(row.name, f"{row.value:,.2f}", row.unit, row.budget, verdict)
    console.print(table)


def print_sizes(rows: Iterable[Row], console: Console) -> None:
    """Prints what was measured at several sizes, a size a column."""
    sizes, lines = by_size(rows)
    if len(sizes) < 2:
        return
    table = Table(title="By number of routes, N")
    table.add_column("what")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    table.add_column("unit")
    for (what, unit), found in lines.items():
        table.add_row(what, *(_cell(found.get(size), "[red]", "[/]") for size in sizes), unit)
    console.print(table)


def by_size(rows: Iterable[Row]) -> tuple[list[int], dict[tuple[str, str], dict[int, Row]]]:
    """Returns the sizes, and the figures by what they are (and their unit) and by size."""
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        if row.size is not None:
            lines.setdefault((row.what, row.unit), {})[row.size] = row
    return sorted({size for found in lines.values() for size in found}), lines


def write_json(rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Writes `{"rows": [{"name", "value", "unit", "part"}, …]}` of rows by part; one with a budget also has that."""
    documents = [
        {key: value for key, value in asdict(row).items() if value not in (None, "")} | {"part": part}
        for part, found in rows.items()
        for row in found
    ]
    path.write_text(json.dumps({"commit": _commit(path.parent), "rows": documents}, indent=2) + "\n", "utf-8")


def read_json(path: Path) -> dict[str, list[Row]]:
    """Returns rows by part, as they were written; nothing where that was at another commit, or never."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    rows: dict[str, list[Row]] = {}
    if found.get("commit") == _commit(path.parent):
        for document in found["rows"]:
            part = document.pop("part")
            rows.setdefault(part, []).append(Row(**document))
    return rows


def write_markdown(rows: Sequence[Row], path: Path, *, mark: str) -> None:
    """Puts the table between the marks `<!-- MARK -->` and `<!-- /MARK -->` of a page; without rows, nothing.

    What was measured at several sizes has a table of its own before it, a size a column.
    """
    if not rows:
        return
    sizes, lines = by_size(rows)
    text = [f"{_made(path.parent)}", ""]
    if len(sizes) > 1:
        text += [*_table_of_sizes(sizes, lines), ""]
        rows = [row for row in rows if row.size is None]
    text += ["| what | value | unit | must be | kept |", "| --- | ---: | --- | ---: | --- |"]
    for row in rows:
        kept = {None: "", True: "yes", False: "**no**"}[row.kept]
        text.append(f"| {row.name} | {row.value:,.2f} | {row.unit} | {row.budget} | {kept} |")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    page, made = path.read_text("utf-8"), "\n".join(text)
    path.write_text(re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{made}\n{end}", page, flags=re.DOTALL), "utf-8")


def _table_of_sizes(sizes: Sequence[int], lines: Mapping[tuple[str, str], Mapping[int, Row]]) -> Iterable[str]:
    yield f"| N routes | {' | '.join(f'{size:,}' for size in sizes)} | unit | must be |"
    yield f"| --- | {' | '.join('---:' for _ in sizes)} | --- | --- |"
    for (what, unit), found in lines.items():
        budgets = ", ".join(f"{row.budget} at {size:,}" for size, row in sorted(found.items()) if row.budget)
        cells = " | ".join(_cell(found.get(size), "**", "**") for size in sizes)
        yield f"| {what} | {cells} | {unit} | {budgets} |"


def _cell(row: Row | None, begin: str, end: str) -> str:
    """A value, marked where it is over its budget."""
    if row is None:
        return ""
    value = f"{row.value:,.0f}" if abs(row.value) >= 1_000 else f"{row.value:,.2f}"
    return f"{begin}{value}{end}" if row.kept is False else value


def _made(folder: Path) -> str:
    commit, python = _commit(folder), platform.python_version()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}; Python {python}, {os.cpu_count()} cores, {platform.machine()}."
    )


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
