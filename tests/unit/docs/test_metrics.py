"""The page of metrics holds what the registries of all processes tell, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from controlplane.engine import Engine
from controlplane.metrics import EngineMetrics
from controlplane.provision.binding import bind
from controlplane.status.metrics import StatusMetrics
from controlplane.xds.metrics import XdsMetrics
from dragoman.metrics import CallMetrics, Collected
from ext_authz.stats import Stats, collect
from ext_authz.verdicts import VerdictCache

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "metrics.md"
ROWS = {
    cells[0].strip("`"): cells[1:3]
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("| `dragoman_")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}
PACKAGES = ("dragoman", "controlplane", "ext_authz", "ratelimit_service")
MAKERS = {"counter", "gauge", "histogram", "Counter", "Gauge", "Histogram"}


def families() -> Iterator[Metric]:
    """What the registries of the control plane and of ext_authz hold."""
    registry = CollectorRegistry(auto_describe=False)
    XdsMetrics(registry)
    registry.register(EngineMetrics(Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))))
    registry.register(StatusMetrics(lambda: 0))
    calls = CallMetrics()
    registry.register(calls)
    verdicts = VerdictCache(max_passes=1)
    registry.register(Collected(lambda: collect(Stats(), verdicts, lambda: 0, lambda: True)))
    yield from (each for each in registry.collect() if each.name.startswith("dragoman_"))


def shown(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def named_in_the_code() -> Iterator[tuple[str, str]]:
    """The names that are written where metrics are made, with how; of pieced names the beginning."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and maker_of(node) in MAKERS and node.args:
                    for name in names_in(node.args[0]):
                        yield name, maker_of(node).lower()


def maker_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def names_in(argument: ast.expr) -> Iterable[str]:
    texts = (each.value for each in ast.walk(argument) if isinstance(each, ast.Constant))
    return [text for text in texts if isinstance(text, str) and text.startswith("dragoman_")]


def test_everything_that_is_told_stands_on_the_page_with_its_type_and_labels() -> None:
    found = list(families())
    assert len(found) > 25
    for family in found:
        assert shown(family) in ROWS, shown(family)
        type_, labels = ROWS[shown(family)]
        assert type_ == family.type
        told = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert told <= set(re.split(r", ", labels)), shown(family)


def test_every_name_in_the_code_stands_on_the_page() -> None:
    found = list(named_in_the_code())
    assert len(found) > 40
    for name, maker in found:
        name = f"{name}_total" if maker == "counter" and not name.endswith(("_", "_total")) else name
        assert any(row == name or (name.endswith("_") and row.startswith(name)) for row in ROWS), name


def test_the_page_names_nothing_that_is_not_there() -> None:
    told = {shown(family) for family in families()}
    written = {name for name, _ in named_in_the_code()}
    for row in ROWS:
        known = row in told or row in written or row.removesuffix("_total") in written
        assert known or any(name.endswith("_") and row.startswith(name) for name in written), row
