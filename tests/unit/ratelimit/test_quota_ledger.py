"""Buckets find their rules, streams their shares, and nobody can have us remember without bound."""

from __future__ import annotations

import pytest

from ratelimit_service.config_file import parse
from ratelimit_service.model import Config, Domain, Node
from ratelimit_service.quota.division import IDLE_S, LINGER_S, SETTLE_S
from ratelimit_service.quota.ledger import Action, Bounds, Ledger, Usage
from ratelimit_service.quota.terms import (
    DOMAIN_KEY,
    LOCAL_TIME_TO_LIVE_S,
    TIME_TO_LIVE_S,
    Terms,
    TokenBucket,
    find_rule,
)
from ratelimit_service.stats import ALL, Detail, StatsRegistry
from tests.support.ratelimit import Clock, loaded

CONFIG = """
domain: shop
descriptors:
  - key: plan
    value: gold
    rate_limit: {unit: second, requests_per_unit: 100, mode: quota}
    descriptors:
      - key: client
        rate_limit: {unit: minute, requests_per_unit: 60, mode: quota}
  - key: path
    value: /a*
    rate_limit: {unit: second, requests_per_unit: 7, mode: quota}
  - key: asked
    rate_limit: {unit: second, requests_per_unit: 7}
  - key: watched
    rate_limit: {unit: second, requests_per_unit: 7, mode: quota}
    shadow_mode: true
  - key: closed
    rate_limit: {unit: second, requests_per_unit: 0, mode: quota}
  - key: free
    rate_limit: {unlimited: true, mode: quota}
  - key: alone
    rate_limit: {unit: day, requests_per_unit: 10, mode: quota, on_store_error: local}
  - key: burst
    rate_limit: {unit: second, requests_per_unit: 10, mode: quota, algorithm: token_bucket, burst: 500}
"""


class Scene:
    """A ledger past its first seconds, and what it says at each turn."""

    def __init__(
        self,
        yaml: str = CONFIG,
        *,
        bounds: Bounds | None = None,
        settled: bool = True,
        detail: Detail = Detail.VALUE,
    ) -> None:
        self.clock = Clock()
        self.config = loaded(yaml)
        self.stats = StatsRegistry(detail=detail)
        self.stats.configure(self.config.rules())
        self.ledger = Ledger(lambda: self.config, self.stats, clock=self.clock, bounds=bounds)
        if settled:
            self.ledger.open(-1)
            self.ledger.close(-1)
            self.clock.now += SETTLE_S

    def report(self, stream: int, *, allowed: int = 1, denied: int = 0, elapsed_s: float = 0.0, **entries: str) -> None:
        self.ledger.report(stream, "shop", Usage(entries, allowed, denied, elapsed_s))

    def due(self) -> list[Action]:
        """Returns what is told until nothing more is, all of it delivered at once."""
        told: list[Action] = []
        while True:
            actions = [action for each in self.ledger.due(all_of_it=True) for action in each]
            if not actions:
                return told
            for action in actions:
                self.ledger.sent(action)
            told += actions


def rule(**bucket: str) -> str | None:
    found = find_rule(loaded(CONFIG), "shop", bucket)
    return found.path if found is not None else None


def test_a_bucket_finds_its_rule_whatever_the_order_of_its_entries() -> None:
    assert rule(plan="gold") == "plan_gold"
    assert rule(plan="gold", client="ada") == rule(client="ada", plan="gold") == "plan_gold.client"
    assert rule(path="/articles") == "path_/a*"


def test_a_bucket_that_no_rule_with_mode_quota_is_about_finds_none() -> None:
    assert rule(plan="silver") is None
    assert rule(client="ada") is None
    assert rule(plan="gold", client="ada", more="x") is None
    assert rule(asked="x") is None
    assert find_rule(loaded(CONFIG), "other", {"plan": "gold"}) is None
    assert find_rule(loaded(CONFIG), "shop", {}) is None


def test_a_bucket_may_name_its_domain_itself() -> None:
    found = find_rule(loaded(CONFIG), "all", {DOMAIN_KEY: "shop", "plan": "gold"})
    assert found is not None
    assert found.path == "plan_gold"


def test_a_search_through_all_orders_of_many_entries_ends() -> None:
    children: dict[str, Node] = {}
    root = Node(children=children)
    children.update({f"key{index}": root for index in range(32)})
    config = Config({"shop": Domain("shop", root)})
    assert find_rule(config, "shop", {f"key{index}": "x" for index in range(32)}) is None


def terms(**bucket: str) -> Terms:
    found = find_rule(loaded(CONFIG), "shop", bucket)
    assert found is not None
    return Terms.of(found)


def test_a_share_is_enforced_by_a_bucket_of_whole_seconds_and_whole_tokens() -> None:
    gold = terms(plan="gold")
    assert gold.bucket(100) == TokenBucket(max_tokens=20, tokens_per_fill=10_000, fill_interval_s=100)
    assert gold.bucket(33.333) == TokenBucket(max_tokens=6, tokens_per_fill=3333, fill_interval_s=100)
    assert gold.bucket(0) == TokenBucket(max_tokens=1, tokens_per_fill=1, fill_interval_s=100)
    minute = terms(plan="gold", client="ada").bucket(0.5)
    assert minute.tokens_per_fill / minute.fill_interval_s == pytest.approx(0.5, rel=0.001)
    assert minute.max_tokens == 1
    assert terms(burst="x").bucket(5).max_tokens == 250


def test_rules_that_never_or_always_refuse_need_no_bucket() -> None:
    assert terms(watched="x").blanket is True
    assert terms(free="x").blanket is True
    assert terms(closed="x").blanket is False
    assert terms(plan="gold").blanket is None


def test_what_is_told_holds_longer_where_envoy_is_to_go_on_alone() -> None:
    assert terms(plan="gold").time_to_live_s == TIME_TO_LIVE_S
    assert terms(alone="x").time_to_live_s == LOCAL_TIME_TO_LIVE_S


@pytest.mark.parametrize("more", ["algorithm: concurrency", "algorithm: leaky_bucket", "precision: lease(10)"])
def test_what_is_no_rate_cannot_be_divided(more: str) -> None:
    text = f"{{unit: second, requests_per_unit: 7, mode: quota, {more}}}"
    _, faults = parse(f"domain: shop\ndescriptors:\n- key: a\n  rate_limit: {text}".encode(), source="a.yaml")
    assert ["quota is for limits of a rate" in str(fault) for fault in faults] == [True]


def test_streams_share_a_bucket_and_what_one_leaves_goes_to_the_other() -> None:
    scene = Scene()
    for stream in (1, 2):
        scene.ledger.open(stream)
        scene.report(stream, plan="gold")
        scene.due()
    assert scene.ledger.shares() == {("shop", "plan_gold"): (2, pytest.approx(100))}
    scene.ledger.close(2)
    for _ in range(2):
        scene.clock.now += LINGER_S / 2 + 0.1
        scene.report(1, allowed=100, denied=100, elapsed_s=5, plan="gold")
    assert [(each.stream, each.share) for each in scene.due()] == [(1, pytest.approx(100))]
    scene.ledger.close(1)
    scene.clock.now += LINGER_S + 1
    scene.due()
    assert scene.ledger.buckets == 0


def test_envoys_that_come_back_keep_their_shares_however_late_the_first_of_them_finds_us() -> None:
    scene = Scene(settled=False)
    scene.clock.now += 60
    for stream in (1, 2):
        scene.ledger.open(stream)
        scene.report(stream, allowed=250, denied=250, elapsed_s=5, plan="gold")
        assert [(each.stream, each.share) for each in scene.due()] == [(stream, pytest.approx(50))]
        scene.clock.now += SETTLE_S / 2
    scene.ledger.open(3)
    scene.report(3, plan="gold")
    scene.due()
    scene.report(3, allowed=10, denied=100, elapsed_s=3, plan="gold")
    scene.due()
    assert scene.ledger.shares() == {("shop", "plan_gold"): (3, pytest.approx(100))}


def test_a_first_report_is_urgent_and_another_is_not() -> None:
    scene = Scene()
    scene.ledger.open(1)
    scene.report(1, plan="gold")
    assert scene.ledger.urgent
    assert [len(each) for each in scene.ledger.due()] == [1]
    scene.report(1, plan="gold")
    assert not scene.ledger.urgent


def test_what_envoys_have_is_told_again_before_it_runs_out() -> None:
    scene = Scene()
    scene.ledger.open(1)
    scene.report(1, plan="gold")
    told_at = scene.clock.now
    scene.due()
    while not scene.due():
        scene.clock.now += 5
        scene.report(1, allowed=500, elapsed_s=5, plan="gold")
    assert 15 < scene.clock.now - told_at < TIME_TO_LIVE_S / 2


def test_an_edited_rule_is_told_to_all_and_a_rule_that_is_gone_ends_its_buckets() -> None:
    scene = Scene()
    scene.ledger.open(1)
    scene.report(1, plan="gold")
    scene.report(1, plan="gold", client="ada")
    scene.due()
    scene.config = loaded(CONFIG.replace("requests_per_unit: 100", "requests_per_unit: 40"))
    assert [each.share for each in scene.due()] == [40]
    scene.config = Config()
    assert [each.strategy for each in scene.due()] == [None, None]
    assert scene.ledger.buckets == 0
    scene.report(1, plan="gold")
    assert scene.ledger.unknown == 1


def test_a_bucket_without_requests_for_long_is_taken_from_its_envoy() -> None:
    scene = Scene()
    scene.ledger.open(1)
    scene.report(1, plan="gold")
    scene.due()
    scene.clock.now += IDLE_S + 1
    scene.report(1, allowed=0, elapsed_s=5, plan="gold")
    assert [each.strategy for each in scene.due()] == [None]
    assert scene.ledger.abandoned == 1


def test_buckets_are_bounded_in_number_and_in_size() -> None:
    scene = Scene(bounds=Bounds(buckets=3, buckets_per_stream=2, entries=4, key_bytes=64))
    for stream in (1, 2):
        scene.ledger.open(stream)
        for client in range(3):
            scene.report(stream, plan="gold", client=f"{stream}-{client}")
    assert scene.ledger.buckets == 3
    assert scene.ledger.refused == 3
    scene.ledger.open(3)
    scene.report(3, plan="gold", client="x" * 64)
    scene.report(3, a="", b="", c="", d="", e="")
    assert scene.ledger.refused == 5
    assert len(scene.due()) == 3


def test_an_envoy_is_told_to_forget_what_is_turned_away_once_it_is_idle() -> None:
    scene = Scene()
    scene.ledger.open(1)
    scene.report(1, nobody="knows")
    assert scene.due() == []
    scene.report(1, allowed=0, elapsed_s=5, nobody="knows")
    assert [(each.stream, each.key[1], each.strategy) for each in scene.due()] == [(1, (("nobody", "knows"),), None)]
    assert scene.due() == []


@pytest.mark.parametrize(
    ("detail", "path"), [(Detail.VALUE, "plan_gold"), (Detail.DESCRIPTOR, "plan_gold"), (Detail.DOMAIN, ALL)]
)
def test_reports_count_as_hits_of_their_rule(detail: Detail, path: str) -> None:
    scene = Scene(detail=detail)
    scene.ledger.open(1)
    scene.report(1, allowed=3, denied=4, plan="gold")
    counts = dict(scene.stats.items())["shop", path]
    assert (counts.total, counts.within, counts.over) == (7, 3, 4)


def test_a_bucket_of_a_version_that_is_not_known_is_divided_by_another_while_it_is_in_use() -> None:
    scene = Scene()
    root = scene.config.domains["shop"].root
    first, second = "demo/p/1", "demo/p/2"
    scene.config = Config({first: Domain(first, root, counters_without_domain=True)})
    scene.due()
    scene.ledger.open(1)
    scene.ledger.report(1, "", Usage({DOMAIN_KEY: second, "plan": "gold"}, 1, 0, 0.0))
    assert [each.share for each in scene.due()] == [100]
    scene.config = Config({second: Domain(second, root, counters_without_domain=True)})
    assert scene.due() == []
    assert (scene.ledger.buckets, scene.ledger.unknown) == (1, 0)
    # What an Envoy has that heard of the edit is to be forgotten.
    scene.ledger.report(1, "", Usage({DOMAIN_KEY: first, "plan": "gold"}, 0, 0, 5.0))
    assert [each.strategy for each in scene.due()] == [None]
    assert (scene.ledger.buckets, scene.ledger.unknown) == (1, 1)
