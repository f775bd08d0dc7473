"""What `explain` says of a request is what a real Envoy does with it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.explain import Explanation, Request, explain, locator
from controlplane.pipeline import http
from tests.support import manifests as m
from tests.support.gateway import Gateway
from tests.support.http import Connection, Response

SEED = 20261121
_ROUTES, _REQUESTS = 14, 400
_SEGMENTS = ["a", "ab", "b", "c.d"]
_HOSTS = ["a.example.com", "b.example.com", "x.b.example.com", "example.com", "other.test", "A.Example.com"]
_HOSTNAMES = [[], [], ["a.example.com"], ["*.example.com"], ["*.b.example.com", "example.com"], ["other.test"]]
_PATTERNS = ["/a.*", "/[ab]/.*", ".*c[.]d", "/ab?/[^/]+"]
_VALUES = [
    {"value": "1"},
    {"value": "2"},
    {"value": "[12]", "type": "RegularExpression"},
]
_ODD = [
    "/a/../b",
    "/a//b",
    "/%61/b",
    "/a%2Fb",
    "/a%5cb",
    "/./ab",
    "/a/.",
    "/../a",
    "/a/%2e%2e/b",
    "/a/..",
    "/a%20b",
    "/",
]
_ODD += ["/a\\b", "/a/b/../../..", "/a;v=1", "/%zz", "//a", "/a%3Fb", "/a/b//", "/A"]
_QUERIES = ["", "", "?", "?p=1", "?q=2&p=1", "?p=2&p=1", "?x=/a/b", "?p=%31", "?p", "?p=1=1", "?&p=1"]


def _path(random_: random.Random, most: int = 3) -> str:
    return "/" + "/".join(random_.choice(_SEGMENTS) for _ in range(random_.randint(0, most)))


def _match(random_: random.Random) -> dict[str, Any]:
    kind = random_.choice(["Exact", "PathPrefix", "PathPrefix", "RegularExpression"])
    value = random_.choice(_PATTERNS) if kind == "RegularExpression" else _path(random_)
    found: dict[str, Any] = {"path": {"type": kind, "value": value}}
    if random_.random() < 0.3:
        found["method"] = random_.choice(["GET", "POST"])
    headers = [{"name": n, **random_.choice(_VALUES)} for n in ("x-one", "x-dragoman-x") if random_.random() < 0.15]
    if random_.random() < 0.1:
        headers.append({"name": "X-Forwarded-Proto", "value": random_.choice(["http", "https"])})
    if random_.random() < 0.05:
        headers.append({"name": "Host", "value": "a.example.com"})
    query = [{"name": name, **random_.choice(_VALUES)} for name in ("p", "q") if random_.random() < 0.15]
    return found | ({"headers": headers} if headers else {}) | ({"queryParams": query} if query else {})


def _route(random_: random.Random, name: str) -> m.Manifest:
    """A route whose rules are told apart by where they redirect to."""
    rules = [
        {
            "name": f"rule-{index}",
            "matches": [_match(random_) for _ in range(random_.randint(1, 3))],
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": f"rule-{index}.{name}.test"}}],
        }
        for index in range(random_.randint(1, 3))
    ]
    made = m.route(name, rules, hostnames=random_.choice(_HOSTNAMES))
    if random_.random() < 0.5:
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=random_.randint(0, 2))
        made["metadata"]["creationTimestamp"] = created.isoformat()
    if random_.random() < 0.3:
        made["spec"]["parentRefs"][0]["sectionName"] = random_.choice(["any", "wild"])
    return made


def _gateway() -> m.Manifest:
    everywhere = {"namespaces": {"from": "All"}}
    listeners = [
        {"name": "any", "port": 80, "protocol": "HTTP", "allowedRoutes": everywhere},
        {"name": "wild", "port": 80, "protocol": "HTTP", "hostname": "*.b.example.com", "allowedRoutes": everywhere},
    ]
    return m.gateway(listeners=listeners)


def _explained(gateway: Gateway, url: str, method: str = "GET", headers: tuple[str, ...] = ()) -> Explanation:
    assert gateway.plane is not None
    engine = gateway.plane.engine
    return explain(engine.pipeline, Request.of(url, method=method, headers=headers), locate=locator(engine))


def _said(explanation: Explanation) -> tuple[int | None, str | None]:
    """The status, and the host that the chosen rule redirects to."""
    chosen = explanation.chosen
    if chosen is None:
        return explanation.outcome.status, None
    _, _, name, rule = chosen.route.split("/")
    return explanation.outcome.status, f"{rule}.{name}.test"


def _done(response: Response) -> tuple[int, str | None]:
    location = response.header("location") or ""
    host = location.partition("://")[2].partition("/")[0].partition(":")[0]
    return response.status, host if host.startswith("rule-") else None


@pytest.mark.parametrize("tree_from", [1, 1000], ids=["tree", "list"])
async def test_explain_names_the_rule_that_envoy_chooses(tree_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TREE_FROM", tree_from)
    random_ = random.Random(SEED)
    documents = [m.gateway_class(), _gateway(), *(_route(random_, f"r{index}") for index in range(_ROUTES))]
    redirected = 0
    async with Gateway({"all.yaml": documents}) as gateway, await Connection.to(gateway.port(80)) as client:
        for _ in range(_REQUESTS):
            method, host = random_.choice(["GET", "POST"]), random_.choice(_HOSTS)
            path = random_.choice(_ODD) if random_.random() < 0.25 else _path(random_, 4)
            target = path + random_.choice(_QUERIES)
            names = [name for name in ("x-one", "x-dragoman-x", "x-forwarded-proto") if random_.random() < 0.3]
            headers = [(name, random_.choice(["1", "2", "https"])) for name in names]
            if random_.random() < 0.05:
                headers += [("x-one", "2")]
            if not client.open:
                client = await Connection.to(gateway.port(80))
            answer = await client.request(target, method=method, host=host, headers=headers)
            texts = (f"Host: {host}", *(f"{name}: {value}" for name, value in headers))
            url = f"http://127.0.0.1:{gateway.port(80)}{target}"
            found = _explained(gateway, url, method, texts)
            assert _said(found) == _done(answer), (method, host, target, headers, found.outcome)
            redirected += found.chosen is not None
    assert _REQUESTS / 4 < redirected < _REQUESTS
