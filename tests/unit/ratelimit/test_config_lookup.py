# pyright: standard
"""Which limit a request finds, and which counter, against a plain model that is written apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import yaml
from hypothesis import given, settings

from ratelimit_service.answers import Answers
from ratelimit_service.config_file import parse
from ratelimit_service.model import Config
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from tests.support.ratelimit import request

KEYS = ("a", "b", "a_b", "b*", "a_")
VALUES = ("", "x", "xy", "x*", "*", "b", "b_x", "xy*")
ASKED = ("", "x", "xy", "xyz", "x*", "b", "b_x", "z")


@dataclass
class Level:
    """A level of descriptors as a list of (name, what is there), in the order of the file."""

    names: list[tuple[str, Any, Level]] = field(default_factory=list)


def level_of(descriptors: list[dict[str, Any]]) -> Level:
    found = Level()
    for each in descriptors:
        value = each.get("value", "")
        name = each["key"] + (f"_{value}" if value else "")
        found.names.append((name, each, level_of(each.get("descriptors", []))))
    return found


def expected(level: Level, entries: list[tuple[str, str]]) -> tuple[str, str] | None:
    """The path of the limit and what its counter is called; None for no limit."""
    path: list[str] = []
    counter = "d_"
    there: Any = None
    for key, value in entries:
        wanted = f"{key}_{value}"
        exact = [each for each in level.names if each[0] == wanted]
        wild = [each for each in level.names if each[0][-1] == "*" and wanted.startswith(each[0][:-1])]
        plain = [each for each in level.names if each[0] == key]
        chosen = (exact or wild or plain or [None])[0]
        if chosen is None:
            return None
        name, there, level = chosen
        path.append(name)
        shared = bool(there.get("share_threshold"))
        counter += f"{key}_{name.removeprefix(f'{key}_') if shared else value}_"
    if there is None or "rate_limit" not in there:
        return None
    return ".".join(path), counter


@st.composite
def descriptors(draw: st.DrawFn, depth: int = 3) -> list[dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}
    for _ in range(draw(st.integers(0 if depth < 3 else 1, 4))):
        key, value = draw(st.sampled_from(KEYS)), draw(st.sampled_from(VALUES))
        name = key + (f"_{value}" if value else "")
        each: dict[str, Any] = {"key": key} | ({"value": value} if value else {})
        if draw(st.booleans()):
            each["rate_limit"] = {"unit": "day", "requests_per_unit": 5}
        if name.endswith("*") and draw(st.booleans()):
            each["share_threshold"] = True
        if depth > 1 and draw(st.booleans()):
            each["descriptors"] = draw(descriptors(depth - 1))
        made.setdefault(name, each)
    return list(made.values())


@settings(max_examples=400, deadline=None)
@given(
    descriptors(),
    st.lists(
        st.lists(st.tuples(st.sampled_from(("a", "b", "bc", "a_", "a_b")), st.sampled_from(ASKED)), max_size=4),
        min_size=1,
        max_size=12,
    ),
)
def test_a_request_finds_the_limit_and_the_counter_of_the_model(
    written: list[dict[str, Any]], asked: list[list[tuple[str, str]]]
) -> None:
    ((domain, _),), faults = parse(yaml.safe_dump({"domain": "d", "descriptors": written}).encode(), source="f")
    assert faults == []
    planner = Planner(Config({"d": domain}), StatsRegistry(), answers=Answers())
    level = level_of(written)
    for entries in asked:
        checks = planner.plan(request("d", entries)).checks
        found = (checks[0].limit.rule.path, checks[0].counter.prefix.decode()) if checks else None
        assert found == expected(level, entries), entries
