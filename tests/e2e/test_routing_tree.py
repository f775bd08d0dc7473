"""A matcher tree and a list route every request alike, in a real Envoy, and as Gateway API says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from controlplane import ir
from controlplane.compile.precedence import match_rank
from controlplane.translate import routes, tree
from controlplane.translate.dump import to_dict
from controlplane.xds import resources as xds
from tests.support.envoy import Envoy
from tests.support.http import Connection
from tests.support.ports import free_port
from tests.support.route_sets import Request, any_path, exact_or_prefix, like, one_path, request, stage, winner

_SETS, _ROUTES, _REQUESTS = 6, 25, 100
_MANY = 200


def _routes(stages: list[list[ir.Match]]) -> list[list[ir.Route]]:
    """Returns a route for each match, which answers with its place."""
    return [
        [_route(match, f"{number}-{index}") for index, match in enumerate(stage)] for number, stage in enumerate(stages)
    ]


def _route(match: ir.Match, name: str) -> ir.Route:
    rule = ir.Rule(name, (match,), ir.Respond(200, name))
    return ir.Route(name, match, rule, ir.Policies(), "")


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


def _hosts(name: str, stages: list[list[ir.Route]]) -> list[bytes]:
    """Encodes the same routes for two hosts, as a list and as a tree."""
    listed = [routes.route(each, port=80, https=False) for stage in stages for each in stage]
    branches = [[routes.branch(each, port=80, https=False) for each in stage] for stage in stages]
    return [
        routes.virtual_host(f"list-{name}.example.com", listed),
        routes.virtual_host_of_tree(f"tree-{name}.example.com", branches),
    ]


@pytest.mark.parametrize("paths", [exact_or_prefix, any_path, like, one_path])
async def test_tree_and_list_route_every_request_alike(paths: Callable[[random.Random], ir.PathMatch]) -> None:
    random_ = random.Random(f"{paths.__name__} in Envoy")
    sets = [[stage(random_, _ROUTES, paths, tree.suits) for _ in range(2)] for _ in range(_SETS)]
    hosts = [host for index, stages in enumerate(sets) for host in _hosts(str(index), _routes(stages))]
    port = free_port()
    answered = 0
    async with Envoy(_bootstrap(port, hosts)), await Connection.to(port) as client:
        for index, stages in enumerate(sets):
            for asked in [request(random_) for _ in range(_REQUESTS)]:
                answers = [await _answer(client, f"{shape}-{index}.example.com", asked) for shape in ("list", "tree")]
                expected = winner(stages, asked)
                assert answers == [expected, expected], (index, asked)
                answered += expected is not None
    assert answered > _SETS * _REQUESTS / 4


async def test_a_tree_holds_hundreds_of_routes_of_each_kind() -> None:
    tenants = [ir.ValueMatch("x-tenant", f"tenant-{index}") for index in range(_MANY)]
    root = ir.PathMatch("PathPrefix", "/")
    by_header = [ir.Match(root, headers=(tenant,)) for tenant in tenants]
    by_method = [ir.Match(root, "GET", (tenant,)) for tenant in tenants]
    by_query = [ir.Match(root, query=(ir.ValueMatch("p", tenant.value),)) for tenant in tenants]
    by_prefix = [ir.Match(ir.PathMatch("PathPrefix", f"/service-{index}")) for index in range(_MANY)]
    like = [ir.Match(ir.PathMatch("RegularExpression", f"/[a-z]+/[^/]+/items-{index}")) for index in range(_MANY)]
    stage = sorted([*by_header, *by_method, *by_query, *by_prefix, *like, ir.Match(root)], key=match_rank)
    names = {match: f"0-{index}" for index, match in enumerate(stage)}
    port = free_port()
    hosts = _hosts("0", _routes([stage]))[1:]
    # Nothing is written for each pair of a query parameter and a prefix: bytes grow with the routes.
    assert len(hosts[0]) < 450 * len(stage)
    async with Envoy(_bootstrap(port, hosts)), await Connection.to(port) as client:
        for asked, match in (
            (Request("/x", headers={"x-tenant": "tenant-199"}), by_method[199]),
            (Request("/x", "POST", {"x-tenant": "tenant-199"}), by_header[199]),
            (Request("/x?a=b&p=tenant-199"), by_query[199]),
            (Request("/service-199?p=tenant-9"), by_prefix[199]),
            (Request("/a/b/items-199?p=tenant-9"), like[199]),
            (Request("/a/b/items-1000?p=tenant"), stage[-1]),
        ):
            assert await _answer(client, "tree-0.example.com", asked) == names[match]


async def _answer(client: Connection, host: str, asked: Request) -> str | None:
    answer = await client.request(asked.target, method=asked.method, host=host, headers=dict(asked.headers))
    return answer.body.decode() if answer.status == 200 else None
