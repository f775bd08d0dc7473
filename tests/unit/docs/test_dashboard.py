# pyright: standard
"""The dashboard: its panels, and that what they ask for is told by whom they are about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.ratelimit import request
from tests.support.ratelimit_process import ask
from tests.unit.docs.test_metrics import ROWS

PANELS: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[3] / "docs" / "dashboard.json").read_text("utf-8")
)["panels"]
LIMITS = "Rate limits"
# What Prometheus itself says of where a sample is from.
OF_THE_SCRAPE = {"job", "instance"}
CONFIG = """
domain: shop
on_store_error: local
descriptors:
  - {key: plan, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: many, rate_limit: {unit: minute, requests_per_unit: 1000, precision: lease(100)}}
"""


class Asked(NamedTuple):
    """What one line of a panel asks Prometheus for."""

    panel: str
    expression: str
    legend: str

    @property
    def names(self) -> set[str]:
        """The metrics, by the names of their samples."""
        return set(re.findall(r"\b(?:dragoman|process|python)_[a-z_]+", self.expression))

    @property
    def labels(self) -> set[str]:
        """The labels that it tells samples apart or chooses them by."""
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", self.expression)
        chosen = re.findall(r"[{,]([a-z_]+)=", self.expression)
        shown = re.findall(r"\{\{([^}]*)\}\}", self.legend)
        return {label for text in grouped for label in text.split(", ")} | {*chosen, *shown}


def asked(panels: list[dict[str, Any]]) -> Iterator[Asked]:
    for panel in panels:
        for target in panel.get("targets", []):
            yield Asked(panel["title"], target["expr"], target["legendFormat"])


def of_row(title: str) -> list[dict[str, Any]]:
    """The panels below a row, up to the next one."""
    at = next(index for index, each in enumerate(PANELS) if (each["type"], each["title"]) == ("row", title))
    rest = PANELS[at + 1 :]
    return rest[: next((index for index, each in enumerate(rest) if each["type"] == "row"), len(rest))]


def test_what_the_dashboard_asks_for_stands_on_the_page_with_its_labels() -> None:
    found = list(asked(PANELS))
    assert len({name for each in found for name in each.names}) > 40
    for each in found:
        labels = set(OF_THE_SCRAPE)
        for name in each.names - {"process_cpu_seconds_total"}:
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            row = ROWS.get(name) or ROWS.get(base)
            assert row is not None, (each.panel, name)
            assert name in ROWS or row[0] == "histogram", (each.panel, name)
            labels |= {*row[1].split(", ")} | ({"le"} if name.endswith("_bucket") else set())
        assert each.labels <= labels, each.panel


def test_panels_have_a_place_and_a_name_of_their_own() -> None:
    assert len({each["id"] for each in PANELS}) == len(PANELS)
    assert len({each["title"] for each in PANELS}) == len(PANELS)
    places = [each["gridPos"] for each in PANELS]
    taken = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


async def test_what_the_panels_about_limits_ask_for_is_told_by_a_limiter(tmp_path: Path) -> None:
    told = await metrics(tmp_path, redis=f"redis://127.0.0.1:{free_port()}") | await metrics(tmp_path)
    found = list(asked(of_row(LIMITS)))
    assert len(found) > 25
    for each in found:
        samples = [labels for name, labels in told if name in each.names]
        assert {name for name, _ in told} >= each.names, each.panel
        chosen = set(re.findall(r'[{,]([a-z_]+)="([^"]*)"', each.expression))
        assert not chosen or any(chosen <= labels for labels in samples), each.panel


async def metrics(folder: Path, **settings: Any) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """The samples of a limiter that was asked, and whose Redis, if it has one, is away."""
    config = folder / "shop.yaml"
    config.write_text(CONFIG)
    given = RateLimitSettings(
        listen=f"unix:{folder}/rl.sock",
        quota_listen=f"unix:{folder}/quota.sock",
        http="127.0.0.1:0",
        config=config,
        drain_s=0.1,
        **settings,
    )
    async with worker(given) as serving:
        assert serving.http is not None
        await ask(folder / "rl.sock", *(request("shop", [(key, "x")]) for key in ("plan", "plan", "many")))
        text = (await fetch(serving.http.port, "/metrics")).text
    families = list(text_string_to_metric_families(text))
    # What nothing has happened to yet has no samples, but its name is told.
    named = {(f"{each.name}_total" if each.type == "counter" else each.name, frozenset()) for each in families}
    return named | {(each.name, frozenset(each.labels.items())) for family in families for each in family.samples}
