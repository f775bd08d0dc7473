"""Which requests an HTTPRoute takes, seen through a real Envoy (Gateway API: HTTPRouteMatch, hostnames, precedence)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


def answer(name: str, match: dict[str, Any] | None = None, *more: dict[str, Any]) -> dict[str, Any]:
    """A rule whose answers say `name`."""
    mark = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-rule", "value": name}]}}
    ref = {"group": "dragoman.dev", "kind": "Backend", "name": "echo"}
    return {"matches": [each for each in (match, *more) if each], "filters": [mark], "backendRefs": [ref]}


def path(value: str, kind: str = "PathPrefix", **more: Any) -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}, **more}


def header(name: str, value: str, kind: str = "Exact") -> dict[str, str]:
    return {"name": name, "value": value, "type": kind}


ROUTES = {
    "matching.yaml": [
        m.route(
            "matching",
            [
                answer("root-of-host", path("/")),
                answer("prefix", path("/shop")),
                answer("longer-prefix", path("/shop/cart/")),
                answer("exact", path("/shop/cart/item", "Exact")),
                answer("regex", path("/items/[0-9]+", "RegularExpression")),
                answer("post", path("/shop", method="POST")),
                answer("one-header", path("/shop", headers=[header("X-Kind", "big")])),
                answer("two-headers", path("/shop", headers=[header("x-kind", "big"), header("x-other", "1")])),
                answer("header-regex", path("/shop", headers=[header("x-number", "[0-9]{2}", "RegularExpression")])),
                answer("query", path("/search", queryParams=[header("q", "tea")])),
                answer("query-regex", path("/search", queryParams=[header("page", "[0-9]+", "RegularExpression")])),
                answer("either", path("/one", "Exact"), path("/two", "Exact")),
                answer("method-over-headers", path("/both", method="GET")),
                answer("headers", path("/both", headers=[header("a", "1"), header("b", "1"), header("c", "1")])),
                answer("headers-over-query", path("/hq", headers=[header("a", "1")])),
                answer("query-only", path("/hq", queryParams=[header("a", "1"), header("b", "1")])),
            ],
            hostnames=["match.example.com"],
        )
    ],
    "hosts.yaml": [
        m.route("exact-host", [answer("exact-host", path("/a"))], hostnames=["a.example.org"]),
        m.route("wildcard-host", [answer("wildcard-host", path("/b"))], hostnames=["*.example.org"]),
        m.route("any-host", [answer("any-host", path("/c"))]),
        m.route("exact-again", [answer("exact-again", path("/a/longer"))], hostnames=["a.example.org"]),
        m.route("wider-longer", [answer("wider-longer", path("/a/longer/still"))], hostnames=["*.example.org"]),
        m.route("several", [answer("several", path("/several"))], hostnames=["s1.example.net", "*.s2.example.net"]),
    ],
    "ties.yaml": [
        m.manifest(
            m.GATEWAY_API,
            "HTTPRoute",
            name,
            {"parentRefs": [{"name": "edge"}], "hostnames": ["ties.example.com"], "rules": [answer(name, path(where))]},
            metadata={"creationTimestamp": created},
        )
        for name, where, created in (
            ("b-older", "/age", "2020-01-01T00:00:00Z"),
            ("a-newer", "/age", "2021-01-01T00:00:00Z"),
            ("b-second", "/name", "2020-01-01T00:00:00Z"),
            ("a-first", "/name", "2020-01-01T00:00:00Z"),
        )
    ]
    + [m.route("order", [answer("first", path("/")), answer("second", path("/"))], hostnames=["order.example.com"])],
    "unusual.yaml": [
        m.route("no-matches", [answer("everything")], hostnames=["everything.example.com"]),
        m.route(
            "odd",
            [answer("spaces", path("/a%20b", "Exact")), answer("case", path("/Case")), answer("dot", path("/v1.0"))],
            hostnames=["odd.example.com"],
        ),
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Upstream("echo") as upstream:
        files = {"base.yaml": [GATEWAY_CLASS, m.gateway(), m.backend("echo", upstream.port)], **ROUTES}
        async with Gateway(files) as running:
            # Two routes of ties.yaml lose by design, and are told so.
            assert [each for each in running.findings() if "ties.yaml" not in each] == []
            yield running


async def answered_by(gateway: Gateway, host: str, path: str, **request: Any) -> str | int:
    response = await gateway.get(path, host=host, **request)
    return response.json()["headers"]["x-rule"] if response.status == 200 else response.status


@pytest.mark.parametrize(
    ("target", "request_", "rule"),
    [
        ("/", {}, "root-of-host"),
        ("/shopping", {}, "root-of-host"),
        ("/shop", {}, "prefix"),
        ("/shop/", {}, "prefix"),
        ("/shop?x=/shop/cart", {}, "prefix"),
        ("/shop/other", {}, "prefix"),
        ("/shop/cart", {}, "longer-prefix"),
        ("/shop/cart/other", {}, "longer-prefix"),
        ("/shop/carts", {}, "prefix"),
        ("/shop/cart/item", {}, "exact"),
        ("/shop/cart/item?q=1", {}, "exact"),
        ("/shop/cart/item/", {}, "longer-prefix"),
        ("/items/12", {}, "regex"),
        ("/items/12?q=1", {}, "regex"),
        ("/items/12/x", {}, "root-of-host"),
        ("/items/x", {}, "root-of-host"),
        ("/shop", {"method": "POST"}, "post"),
        ("/shop", {"method": "PUT"}, "prefix"),
        ("/shop", {"headers": {"x-kind": "big"}}, "one-header"),
        ("/shop", {"headers": {"x-kind": "bigger"}}, "prefix"),
        ("/shop", {"headers": {"X-KIND": "big", "x-other": "1"}}, "two-headers"),
        ("/shop", {"headers": {"x-kind": "big"}, "method": "POST"}, "post"),
        ("/shop/cart", {"headers": {"x-kind": "big"}}, "longer-prefix"),
        ("/shop", {"headers": {"x-number": "12"}}, "header-regex"),
        ("/shop", {"headers": {"x-number": "123"}}, "prefix"),
        ("/search?q=tea", {}, "query"),
        ("/search?q=teapot", {}, "root-of-host"),
        ("/search?page=12", {}, "query-regex"),
        ("/search?page=12a", {}, "root-of-host"),
        ("/search?other=1&page=3", {}, "query-regex"),
        ("/search", {}, "root-of-host"),
        ("/one", {}, "either"),
        ("/two", {}, "either"),
        ("/both", {"headers": {"a": "1", "b": "1", "c": "1"}}, "method-over-headers"),
        ("/both", {"headers": {"a": "1", "b": "1", "c": "1"}, "method": "PUT"}, "headers"),
        ("/hq?a=1&b=1", {"headers": {"a": "1"}}, "headers-over-query"),
        ("/hq?a=1&b=1", {}, "query-only"),
    ],
)
async def test_a_request_is_answered_by_the_rule_with_precedence(
    gateway: Gateway, target: str, request_: dict[str, Any], rule: str
) -> None:
    assert await answered_by(gateway, "match.example.com", target, **request_) == rule


@pytest.mark.parametrize(
    ("host", "target", "rule"),
    [
        ("a.example.org", "/a", "exact-host"),
        ("A.Example.Org", "/a", "exact-host"),
        ("a.example.org:8080", "/a", "exact-host"),
        ("a.example.org", "/b", "wildcard-host"),
        ("a.example.org", "/c", "any-host"),
        ("a.example.org", "/d", 404),
        ("b.example.org", "/a", 404),
        ("b.example.org", "/b", "wildcard-host"),
        ("deep.b.example.org", "/b", "wildcard-host"),
        ("deep.b.example.org", "/c", "any-host"),
        ("example.org", "/b", 404),
        ("other.test", "/c", "any-host"),
        ("a.example.org", "/a/longer/x", "exact-again"),
        ("a.example.org", "/a/longer/still", "exact-again"),
        ("b.example.org", "/a/longer/still", "wider-longer"),
        ("s1.example.net", "/several", "several"),
        ("x.s2.example.net", "/several", "several"),
        ("s3.example.net", "/several", 404),
    ],
)
async def test_the_most_specific_hostname_comes_first_and_wider_ones_follow(
    gateway: Gateway, host: str, target: str, rule: str | int
) -> None:
    assert await answered_by(gateway, host, target) == rule


async def test_ties_go_to_the_older_route_then_to_the_first_name_then_to_the_first_rule(gateway: Gateway) -> None:
    assert await answered_by(gateway, "ties.example.com", "/age") == "b-older"
    assert await answered_by(gateway, "ties.example.com", "/name") == "a-first"
    assert await answered_by(gateway, "order.example.com", "/") == "first"


async def test_a_rule_without_matches_takes_every_request(gateway: Gateway) -> None:
    assert await answered_by(gateway, "everything.example.com", "/anything?x", method="DELETE") == "everything"


@pytest.mark.parametrize(
    ("target", "rule"),
    [("/a%20b", "spaces"), ("/Case/x", "case"), ("/case", 404), ("/v1.0", "dot"), ("/v1x0", 404)],
)
async def test_paths_are_compared_as_they_are_written(gateway: Gateway, target: str, rule: str | int) -> None:
    assert await answered_by(gateway, "odd.example.com", target) == rule


@pytest.mark.parametrize("target", ["/shop/../shop/cart/item", "//shop//cart//item", "/shop/./cart/item"])
async def test_a_path_is_normalised_before_it_is_matched(gateway: Gateway, target: str) -> None:
    assert await answered_by(gateway, "match.example.com", target) == "exact"
