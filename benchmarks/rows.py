"""What a measurement gives: rows of a name, a value and a unit, some with a budget that they must keep."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `at_most` or `at_least` is its budget in the same unit, None where it is only reported."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

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


def write_json(rows: Iterable[Row], path: Path) -> None:
    """Writes `{"rows": [{"name", "value", "unit"}, …]}`; one with a budget also has `at_most` or `at_least`."""
    documents = [{key: value for key, value in asdict(row).items() if value is not None} for row in rows]
    path.write_text(json.dumps({"rows": documents}, indent=2) + "\n", "utf-8")


def write_markdown(rows: Sequence[Row], path: Path, *, mark: str) -> None:
    """Puts the table between the marks `<!-- MARK -->` and `<!-- /MARK -->` of a page; without rows, nothing."""
    if not rows:
        return
    made = f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit(path.parent)}"
    lines = [f"{made}; Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}.", ""]
    lines += ["| what | value | unit | must be | kept |", "| --- | ---: | --- | ---: | --- |"]
    for row in rows:
        kept = {None: "", True: "yes", False: "**no**"}[row.kept]
        lines.append(f"| {row.name} | {row.value:,.2f} | {row.unit} | {row.budget} | {kept} |")
    table = "\n".join(lines)
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    page = path.read_text("utf-8")
    path.write_text(re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", page, flags=re.DOTALL), "utf-8")


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
