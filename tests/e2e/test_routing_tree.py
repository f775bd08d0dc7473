"""A matcher tree and a list route every request alike, in a real Envoy, and as Gateway API says."""

from __future__ import annotations

import random
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from controlplane import ir
from controlplane.compile.precedence import match_rank
from controlplane.translate import routes
from controlplane.translate.dump import to_dict
from controlplane.xds import resources as xds
from tests.support.envoy import Envoy
from tests.support.http import Connection
from tests.support.ports import free_port

SEED = 20261121
_SETS, _ROUTES, _REQUESTS = 12, 30, 120
_SEGMENTS = ["a", "ab", "b", "c.d"]
_METHODS = [None, None, None, "GET", "POST"]
_VALUES = ["1", "2"]


def _path(random_: random.Random, most: int = 3) -> str:
    return "/" + "/".join(random_.choice(_SEGMENTS) for _ in range(random_.randint(0, most)))


def _match(random_: random.Random, kinds: list[str]) -> ir.Match:
    kind: Any = random_.choice(kinds)
    value = _path(random_)
    if kind == "Exact" and random_.random() < 0.2:
        value = value.rstrip("/") + "/"
    if kind == "RegularExpression":
        value = random_.choice(["/a.*", "/[ab]/.*", "[a-z/]*c[.]d", "/ab?/[a-z.]+"])
    return ir.Match(
        path=ir.PathMatch(kind, value),
        method=random_.choice(_METHODS),
        headers=_values(random_, ["x-one", "x-two"]),
        query=() if kind == "RegularExpression" else _values(random_, ["p", "q"]),
    )


def _values(random_: random.Random, names: list[str]) -> tuple[ir.ValueMatch, ...]:
    chosen = [name for name in names if random_.random() < 0.2]
    values = [("1", False), ("2", False), ("[12]", True)]
    return tuple(ir.ValueMatch(name, *random_.choice(values)) for name in chosen)


def _routes(random_: random.Random, kinds: list[str]) -> list[ir.Route]:
    found = []
    for index in range(_ROUTES):
        match = _match(random_, kinds)
        rule = ir.Rule(f"rule-{index}", (match,), ir.Respond(200, f"rule-{index}"))
        found.append(ir.Route(rule.name, match, rule, ir.Policies(), ""))
    return sorted(found, key=lambda route: match_rank(route.match))


def _expected(candidates: list[ir.Route], method: str, target: str, headers: dict[str, str]) -> str | None:
    """The rules of Gateway API, spelled out for one request."""
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    for route in candidates:
        path, value = route.match.path, route.match.path.value
        fits = {
            "Exact": url.path == value,
            "PathPrefix": value == "/" or url.path == value or url.path.startswith(f"{value}/"),
            "RegularExpression": path.kind == "RegularExpression" and re.fullmatch(value, url.path) is not None,
        }[path.kind]
        if (
            fits
            and route.match.method in (None, method)
            and all(_holds(each, headers.get(each.name)) for each in route.match.headers)
            and all(_holds(each, query.get(each.name)) for each in route.match.query)
        ):
            return route.name
    return None


def _holds(want: ir.ValueMatch, value: str | None) -> bool:
    if value is None:
        return False
    return re.fullmatch(want.value, value) is not None if want.regex else want.value == value


def _bootstrap(port: int, hosts: list[bytes]) -> dict[str, Any]:
    body = routes.route_configuration("routes", map(routes.part, hosts))
    extensions = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "test",
        "routeConfig": to_dict(xds.ROUTE, body),
        "httpFilters": [
            {
                "name": "router",
                "typedConfig": {"@type": f"{extensions}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "test",
        "address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}},
        "filterChains": [{"filters": [{"name": "hcm", "typedConfig": manager}]}],
    }
    return {"staticResources": {"listeners": [listener]}}


@pytest.mark.parametrize(
    "kinds", [["Exact", "PathPrefix", "PathPrefix"], ["Exact", "PathPrefix", "PathPrefix", "RegularExpression"]]
)
async def test_tree_and_list_route_every_request_alike(kinds: list[str]) -> None:
    random_ = random.Random(SEED)
    sets = [(_routes(random_, kinds), _routes(random_, kinds)) for _ in range(_SETS)]
    hosts: list[bytes] = []
    for index, (near, far) in enumerate(sets):
        listed = [routes.route(each, port=80, https=False) for each in [*near, *far]]
        hosts.append(routes.virtual_host(f"list-{index}.example.com", listed))
        stages = [[routes.branch(each, port=80, https=False) for each in stage] for stage in (near, far)]
        hosts.append(routes.virtual_host_of_tree(f"tree-{index}.example.com", stages))
    port = free_port()
    answered = 0
    async with Envoy(_bootstrap(port, hosts)), await Connection.to(port) as client:
        for index, (near, far) in enumerate(sets):
            for _ in range(_REQUESTS):
                method = random_.choice(["GET", "POST"])
                target = _path(random_, 4) + random_.choice(["", "", "/", "?", "?p=1", "?q=2&p=1", "?x=/a/b", "x"])
                headers = {name: random_.choice(_VALUES) for name in ("x-one", "x-two") if random_.random() < 0.4}
                answers = []
                for shape in ("list", "tree"):
                    host = f"{shape}-{index}.example.com"
                    answer = await client.request(target, method=method, host=host, headers=headers)
                    answers.append(answer.body.decode() if answer.status == 200 else None)
                expected = _expected(near, method, target, headers) or _expected(far, method, target, headers)
                assert answers == [expected, expected], (index, method, target, headers)
                answered += expected is not None
    assert answered > _SETS * _REQUESTS / 4
