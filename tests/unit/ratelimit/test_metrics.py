# pyright: standard
"""What metrics tell of limits: whose hits are whose, how many series there are, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from ratelimit_service import hits
from ratelimit_service.main import worker
from ratelimit_service.model import Rule, Unit
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import ALL, OTHER, Detail, RuleStats, StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.http import fetch
from tests.support.ratelimit import Clock, Limiter, request


def rules(*paths: str, domain: str = "d") -> list[Rule]:
    return [Rule(domain, path, Unit.DAY, 1) for path in paths]


def counted(stats: StatsRegistry) -> dict[tuple[str, str], int]:
    return {key: counts.total for key, counts in stats.items() if counts.total}


def hit(stats: StatsRegistry, path: str, configured: str = "", domain: str = "d") -> None:
    stats.of(domain, path, configured or path).total += 1


def test_values_have_counts_of_their_own_up_to_a_bound_and_share_one_above() -> None:
    stats = StatsRegistry(max_values=2)
    stats.configure(rules("k"))
    for value in ("k_a", "k_b", "k_c", "k_d", "k_a", "k"):
        hit(stats, value, "k")
    assert counted(stats) == {("d", "k"): 1, ("d", "k_a"): 2, ("d", "k_b"): 1, ("d", OTHER): 2}
    assert stats.folded_values == 2


def test_configured_descriptors_are_bounded_too_and_those_that_have_counts_keep_them() -> None:
    stats = StatsRegistry(max_descriptors=2)
    stats.configure(rules("a", "b", "c"))
    for path in "abc":
        hit(stats, path)
    assert counted(stats) == {("d", "a"): 1, ("d", "b"): 1, ("d", OTHER): 1}
    assert stats.folded == 1
    # A place becomes free: it is for what comes new, since whoever counts for others may hold on to that.
    stats.configure(rules("new", "c", "b"))
    for path in ("new", "c", "b"):
        hit(stats, path)
    assert counted(stats) == {("d", "b"): 2, ("d", "new"): 1, ("d", OTHER): 2}
    stats.configure(rules("c"))
    stats.configure(rules("b"))
    stats.configure(rules("c"))
    assert stats.folded == 0


def test_by_descriptor_values_and_limits_that_requests_bring_have_no_counts_of_their_own() -> None:
    stats = StatsRegistry(detail=Detail.DESCRIPTOR)
    stats.configure(rules("k"))
    for path, configured in (("k", "k"), ("k_a", "k"), ("brought", "brought")):
        hit(stats, path, configured)
    assert counted(stats) == {("d", "k"): 2, ("d", OTHER): 1}
    assert stats.folded_values == 0


def test_by_domain_there_is_one_of_each() -> None:
    stats = StatsRegistry(detail=Detail.DOMAIN, max_descriptors=1)
    stats.configure([*rules("k", "l"), *rules("m", domain="e"), *rules("n", domain="f")])
    for domain, path in (("d", "k"), ("d", "l_x"), ("e", "m"), ("f", "n")):
        hit(stats, path, path[:1], domain)
    assert counted(stats) == {("d", ALL): 2, ("e", OTHER): 1, ("f", OTHER): 1}


def test_counts_go_with_their_rule_and_with_their_domain() -> None:
    stats = StatsRegistry(max_values=1)
    stats.configure([*rules("a", "b"), *rules("x", domain="e")])
    for path in ("a", "b", "b_1", "b_2"):
        hit(stats, path, path[0])
    hit(stats, "x_1", "x", "e")
    stats.configure(rules("a", domain="d"))
    assert counted(stats) == {("d", "a"): 1, ("d", "b_1"): 1, ("d", OTHER): 1}
    stats.configure(rules("x", domain="e"))
    assert counted(stats) == {}


async def test_a_value_that_gets_a_descriptor_of_its_own_is_told_once_and_keeps_what_was_counted() -> None:
    stats = StatsRegistry()
    stats.configure(rules("k"))
    found = stats.of("d", "k_v", "k")
    found.total, found.over = 3, 1
    stats.configure(rules("k", "k_v"))
    hit(stats, "k_v")
    # Who had found it goes on to count it.
    found.total += 1
    assert [(key, counts.total, counts.over) for key, counts in stats.items()] == [
        (("d", "k"), 0, 0),
        (("d", "k_v"), 5, 1),
    ]
    assert (await exposed(stats))["dragoman_ratelimit_hits_total", "d", "k_v"] == 5
    stats.configure(rules("k"))
    assert stats.of("d", "k_v", "k") is found


def test_a_long_value_makes_a_short_name() -> None:
    stats = StatsRegistry()
    for tail in "ab":
        hit(stats, "k_" + "x" * 5000 + tail, "k")
    assert {len(path): total for (_, path), total in counted(stats).items()} == {256: 2}


async def exposed(stats: StatsRegistry) -> dict[tuple[str, str, str], float]:
    text = "".join([part async for part in hits.exposition(stats)])
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"counter"}
    assert len(families) == len(hits.HITS)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, s.labels["domain"], s.labels["descriptor"]): s.value for s in samples}


async def test_every_count_is_told_whatever_a_value_is() -> None:
    odd = ['a"b', "back\\slash", "line\nbreak", "grün", "", "\ud800", "x} 1\n#"]
    stats = StatsRegistry()
    for number, path in enumerate(odd):
        stats.of("d", path).total = number + 1
    found = await exposed(stats)
    told = {path: value for (name, _, path), value in found.items() if name == "dragoman_ratelimit_hits_total"}
    assert told == {path.encode("utf-8", "replace").decode(): number + 1 for number, path in enumerate(odd)}


async def test_many_series_are_told_whole_and_in_parts_that_are_short() -> None:
    stats = StatsRegistry(max_values=5000)
    for number in range(1234):
        counts = stats.of("d", f"k_{number}")
        for offset, kind in enumerate(RuleStats.__slots__):
            setattr(counts, kind, number * 10 + offset)
    found = await exposed(stats)
    assert len(found) == 1234 * len(hits.HITS)
    assert set(hits.HITS) == set(RuleStats.__slots__)
    for offset, kind in enumerate(RuleStats.__slots__):
        name = "dragoman_ratelimit_hits_total" if kind == "total" else f"dragoman_ratelimit_hits_{kind}_total"
        assert found[name, "d", "k_77"] == 770 + offset
    assert max([part.count("\n") async for part in hits.exposition(stats)]) <= 500


def limits(per_day: int, **fields: Any) -> str:
    more = "".join(f", {name}: {value}" for name, value in fields.items())
    return f"domain: d\ndescriptors:\n- {{key: k, rate_limit: {{unit: day, requests_per_unit: {per_day}}}{more}}}\n"


def test_each_hit_is_counted_as_what_came_of_it() -> None:
    given = Limiter(limits(10), MemoryStore(), clock=Clock())
    given.ask(request("d", [("k", "a")], hits=7))
    given.ask(request("d", [("k", "a")], hits=5))
    given.ask(request("d", [("k", "a")], hits=3))
    stats = given.stats.of("d", "k")
    assert (stats.total, stats.within, stats.near, stats.over, stats.over_local) == (15, 7, 2, 5, 3)


def test_a_look_counts_nothing() -> None:
    given = Limiter(limits(10), MemoryStore(), clock=Clock())
    given.ask(request("d", [("k", "a")], own_hits=(0,)))
    stats = given.stats.of("d", "k")
    assert {getattr(stats, kind) for kind in RuleStats.__slots__} == {0}


async def test_a_worker_tells_hits_decisions_and_the_store_and_is_told_how_far(tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(limits(1, shadow_mode="true", detailed_metric="true"))
    settings = RateLimitSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "http": "127.0.0.1:0",
            "config": config,
            "metrics_max_values": 1,
        }
    )
    async with worker(settings) as given:
        assert given.http is not None
        port = given.http.port
        for value in "aab":
            body = f'{{"domain": "d", "descriptors": [{{"entries": [{{"key": "k", "value": "{value}"}}]}}]}}'
            assert (await fetch(port, "/json", method="POST", body=body.encode())).status == 200
        answer = await fetch(port, "/metrics")
    assert (answer.header("content-type") or "").startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    found = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
    assert found["dragoman_ratelimit_hits_total", "d", "k_a"] == 2
    assert found["dragoman_ratelimit_hits_shadow_total", "d", "k_a"] == 1
    assert found["dragoman_ratelimit_hits_total", "d", OTHER] == 1
    assert found["dragoman_ratelimit_folded_values_total",] == 1
    assert found["dragoman_ratelimit_shadowed_requests_total",] == 0
    assert found["dragoman_ratelimit_store_up",] == 1
    assert found["dragoman_ratelimit_domains",] == 1


@pytest.mark.parametrize("wrong", [{"metrics_detail": "everything"}, {"metrics_max_values": -1}])
def test_settings_of_metrics_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RateLimitSettings.model_validate({"listen": "127.0.0.1:0", "config": "x", **wrong})
