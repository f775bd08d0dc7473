"""Random rules and random requests through a real Envoy: what a rule counts is what a plain reading of it says."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlencode

from tests.e2e.policy_limits import limit, shared
from tests.e2e.policy_manifests import Manifest, limits, routes
from tests.e2e.policy_services import ratelimit
from tests.support.gateway import Gateway
from tests.support.http import Connection
from tests.support.upstream import Upstream

ROUTES, REQUESTS = 40, 12
VALUES = ["", "a", "A", "a,b", "b", "aa", "a b", "x=1"]
EXPRESSIONS = ["a", "a|b", "[a-z]+", "^a$", ".*", "(?i)a", "a.*", "[^a]*", ".b"]
PATHS = {
    "Exact": ["/@", "/@/a", "/@/"],
    "PathPrefix": ["/@", "/@/a", "/@/"],
    "RegularExpression": ["/@/.*", "^/@$", "/@/[^a]+", ".*/b", "/@(/a)?$", ".*a"],
}
RANGES = ["127.0.0.0/8", "10.0.0.0/8", "::/0", "0.0.0.0/0", "127.0.0.1/32", "127.0.0.2/31"]
Pairs = list[tuple[str, str]]


class Rules:
    """Makes conditions of rules."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def conditions(self, route: str) -> list[Manifest]:
        return [self._condition(route) for _ in range(self._random.randint(1, 2))]

    def _condition(self, route: str) -> Manifest:
        pick, some = self._random.choice, self._some
        made: Manifest = {}
        if some(0.5):
            made["headers"] = [self._value(pick(["x-a", "X-B"])) for _ in range(self._random.randint(1, 2))]
        if some(0.3):
            made["methods"] = [{"value": pick(["GET", "POST"]), "invert": some(0.4)} for _ in range(pick([1, 2]))]
        if some(0.4):
            kind = pick([*PATHS])
            made["path"] = {"type": kind, "value": pick(PATHS[kind]).replace("@", route), "invert": some(0.3)}
        if some(0.3):
            kind = pick(["Exact", "Distinct"])
            made["sourceCIDR"] = {"value": pick(RANGES), "type": kind, "invert": some(0.3)}
        if some(0.4):
            made["queryParams"] = [self._value(pick(["q", "Q"]))]
        return made or self._condition(route)

    def _value(self, name: str) -> Manifest:
        kind = self._random.choice(["Exact", "RegularExpression", "Distinct"])
        if kind == "Distinct":
            return {"name": name, "type": kind}
        value = self._random.choice(VALUES if kind == "Exact" else EXPRESSIONS)
        return {"name": name, "type": kind, "value": value, "invert": self._some(0.4)}

    def _some(self, share: float) -> bool:
        return self._random.random() < share


def counts(conditions: Sequence[Manifest], method: str, path: str, query: Pairs, headers: Pairs) -> bool:
    return all(_holds(each, method, path, query, headers) for each in conditions)


def _holds(condition: Manifest, method: str, path: str, query: Pairs, headers: Pairs) -> bool:
    def of(pairs: Pairs, name: str) -> list[str]:
        return [value for key, value in pairs if key == name]

    named = [(key.lower(), value) for key, value in headers]
    found = [_fits(each, of(named, each["name"].lower())) for each in condition.get("headers", ())]
    # The first of several parameters of a name counts.
    found += [_fits(each, of(query, each["name"])[:1]) for each in condition.get("queryParams", ())]
    if "methods" in condition:
        found.append(any((method == each["value"]) is not each["invert"] for each in condition["methods"]))
    if "path" in condition:
        found.append(_is_about(condition["path"], path) is not condition["path"]["invert"])
    if "sourceCIDR" in condition:
        source = condition["sourceCIDR"]
        found.append((ip_address("127.0.0.1") in ip_network(source["value"])) is not source["invert"])
    return all(found)


def _fits(match: Manifest, values: Sequence[str]) -> bool:
    if match["type"] == "Distinct":
        return bool(values)
    exact = match["type"] == "Exact"
    fits = (each == match["value"] if exact else re.fullmatch(match["value"], each) is not None for each in values)
    return any(fits) is not match["invert"]


def _is_about(match: Manifest, path: str) -> bool:
    value = match["value"]
    if match["type"] == "RegularExpression":
        return re.fullmatch(value, path) is not None
    return path == value if match["type"] == "Exact" else f"{path}/".startswith(f"{value.rstrip('/')}/")


async def test_a_rule_counts_what_a_plain_reading_of_it_says(upstream: Upstream) -> None:
    made, random_ = Rules(6), random.Random(7)
    rules = {f"r{number}": made.conditions(f"r{number}") for number in range(ROUTES)}
    ready = limit(0, "Day", {"headers": [{"name": "x-ready", "type": "Distinct"}]})
    files: dict[str, Any] = {
        "a.yaml": [
            *routes(upstream, *rules, "free"),
            # Closed, so that no answer that is late passes for one of another sort.
            *(limits(name, shared(limit(0, "Day", *each), failureMode="Closed")) for name, each in rules.items()),
            limits("free", shared(ready)),
        ]
    }
    outcomes = {True: 0, False: 0}
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free", 429, headers={"x-ready": "1"})
        assert gateway.findings() == []
        async with await Connection.to(gateway.port(80)) as connection:
            for name, conditions in rules.items():
                for _ in range(REQUESTS):
                    method = random_.choice(["GET", "POST", "PUT"])
                    path = f"/{name}" + random_.choice(["", "/", "/a", "/b", "/ab", "/a/b"])
                    query = [(random_.choice("qQz"), random_.choice([*VALUES, "/b"])) for _ in range(2)]
                    query = query[: random_.randint(0, 2)]
                    headers = [(random_.choice(["x-a", "x-b", "X-A"]), random_.choice(VALUES)) for _ in range(2)]
                    headers = headers[: random_.randint(0, 2)]
                    target = f"{path}?{urlencode(query)}" if query else path
                    answer = await connection.request(target, method=method, host="example.com", headers=headers)
                    if answer.status == 503:
                        continue
                    counted = counts(conditions, method, path, query, headers)
                    assert answer.status == (429 if counted else 200), (conditions, method, target, headers)
                    outcomes[counted] += 1
    assert min(outcomes.values()) > ROUTES
