"""Gateways and their plain listeners, seen through real Envoys (Gateway API: Listener, AllowedRoutes)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

INNER = "demo/inner"


def listener(name: str, port: int, hostname: str | None = None, **allowed: Any) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": port, "protocol": "HTTP", **host, "allowedRoutes": {"namespaces": allowed}}


def routed(
    name: str, *parents: dict[str, Any], hostnames: list[str] | None = None, path: str | None = None, **where: Any
) -> m.Manifest:
    """A route whose answers say its name."""
    edit = {"set": [{"name": "x-route", "value": name}]}
    rule = m.to_backend(path or "/", "echo", filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}])
    rule["backendRefs"] = [{**ref, "namespace": "demo"} for ref in rule["backendRefs"]]
    refs = [{"name": "edge", "namespace": "demo", **parent} for parent in parents or ({},)]
    return m.manifest(
        m.GATEWAY_API, "HTTPRoute", name, {"parentRefs": refs, "hostnames": hostnames or [], "rules": [rule]}, **where
    )


def namespace(name: str, **labels: str) -> m.Manifest:
    return m.manifest("v1", "Namespace", name, None, namespace=None, metadata={"labels": labels})


NAMESPACES = ("demo", "shop", "plain", "unlabelled")
INNER_LISTENERS = [listener("http", 80), listener("more", 8080, "more.example.com")]
LISTENERS = [
    listener("any", 80, **{"from": "All"}),
    listener("wildcard", 80, "*.example.com", **{"from": "All"}),
    listener("exact", 80, "a.example.com", **{"from": "All"}),
    listener("same", 8001),
    listener("all", 8002, **{"from": "All"}),
    listener("selected", 8003, **{"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}),
    listener(
        "by-name",
        8004,
        **{"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "plain"}}},
    ),
]

ROUTES = [
    # Of port 80's three listeners each request has exactly one, that of the most specific hostname.
    routed("on-any", {"sectionName": "any"}, path="/any"),
    routed("on-wildcard", {"sectionName": "wildcard"}, path="/wildcard"),
    routed("on-exact", {"sectionName": "exact"}, path="/exact"),
    routed("on-any-by-host", {"sectionName": "any"}, hostnames=["b.example.com", "x.test"], path="/by-host"),
    routed("on-all-of-80", {"port": 80}, path="/everywhere"),
    *(
        routed(f"from-{where}", *({"port": port} for port in range(8001, 8005)), path=f"/from-{where}", namespace=where)
        for where in NAMESPACES
    ),
    routed("inner", {"name": "inner"}),
    routed("both", {"name": "inner"}, {"port": 8002}, path="/both"),
]
GRANT = m.manifest(
    m.GATEWAY_API,
    "ReferenceGrant",
    "everybody",
    {
        "from": [
            {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": where} for where in NAMESPACES[1:]
        ],
        "to": [{"group": "dragoman.dev", "kind": "Backend"}],
    },
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Upstream("echo") as upstream:
        files = {
            "base.yaml": [
                GATEWAY_CLASS,
                m.gateway(listeners=LISTENERS),
                m.backend("echo", upstream.port),
                GRANT,
                namespace("shop", team="shop"),
                namespace("plain", team="other"),
            ],
            "inner.yaml": [m.gateway("inner", listeners=INNER_LISTENERS)],
            "routes.yaml": ROUTES,
        }
        async with Gateway(files, others=[INNER]) as running:
            yield running


async def answered_by(running: Gateway, path: str, **request: Any) -> str | int:
    response = await running.get(path, **request)
    return response.json()["headers"]["x-route"] if response.status == 200 else response.status


@pytest.mark.parametrize(
    ("host", "path", "route"),
    [
        ("x.test", "/any", "on-any"),
        ("x.test", "/wildcard", 404),
        ("b.example.com", "/wildcard", "on-wildcard"),
        ("b.example.com", "/any", 404),
        ("b.example.com", "/by-host", 404),
        ("x.test", "/by-host", "on-any-by-host"),
        ("a.example.com", "/exact", "on-exact"),
        ("a.example.com", "/wildcard", 404),
        ("a.example.com", "/any", 404),
        ("x.test", "/everywhere", "on-all-of-80"),
        ("b.example.com", "/everywhere", "on-all-of-80"),
        ("a.example.com", "/everywhere", "on-all-of-80"),
    ],
)
async def test_a_request_has_the_routes_of_the_most_specific_listener_alone(
    gateway: Gateway, host: str, path: str, route: str | int
) -> None:
    assert await answered_by(gateway, path, host=host) == route


@pytest.mark.parametrize(
    ("port", "allowed"),
    [(8001, {"demo"}), (8002, set(NAMESPACES)), (8003, {"shop"}), (8004, {"plain"})],
    ids=["Same", "All", "Selector", "selected by name"],
)
async def test_a_listener_takes_routes_of_the_namespaces_that_it_allows(
    gateway: Gateway, port: int, allowed: set[str]
) -> None:
    answers = {where: await answered_by(gateway, f"/from-{where}", port=port) for where in NAMESPACES}
    assert answers == {where: f"from-{where}" if where in allowed else 404 for where in NAMESPACES}


async def test_a_route_that_no_listener_takes_is_told_so(gateway: Gateway) -> None:
    gateway.write("turned-away.yaml", [routed("turned-away", {"sectionName": "same"}, namespace="plain")])
    finding = await gateway.found("HTTPRoute plain/turned-away")
    assert "no listener of Gateway demo/edge lets HTTPRoutes of namespace plain attach" in finding
    gateway.remove("turned-away.yaml")


async def test_the_labels_of_a_namespace_decide_as_they_change(gateway: Gateway) -> None:
    await gateway.answers("/from-unlabelled", 404, port=8003)
    gateway.write("label.yaml", [namespace("unlabelled", team="shop")])
    await gateway.answers("/from-unlabelled", port=8003)
    gateway.write("label.yaml", [namespace("unlabelled", team="other")])
    await gateway.answers("/from-unlabelled", 404, port=8003)
    gateway.remove("label.yaml")


async def test_each_gateway_has_its_own_routes_and_envoys(gateway: Gateway) -> None:
    assert await answered_by(gateway, "/x", gateway=INNER) == "inner"
    assert await answered_by(gateway, "/x", port=8080, host="more.example.com", gateway=INNER) == "inner"
    assert await answered_by(gateway, "/x", port=8080, host="other.example.com", gateway=INNER) == 404
    assert await answered_by(gateway, "/both", gateway=INNER) == "both"
    assert await answered_by(gateway, "/both", port=8002) == "both"
    assert await answered_by(gateway, "/x", port=8002) == 404


async def test_a_listener_comes_and_goes_with_its_port(gateway: Gateway) -> None:
    files = [m.gateway("inner", listeners=[listener("http", 80), listener("late", 8081)])]
    gateway.write("inner.yaml", files)
    await gateway.answers("/x", port=8081, gateway=INNER)
    gateway.write("inner.yaml", [m.gateway("inner", listeners=[listener("http", 80)])])
    await gateway.refuses(8081, gateway=INNER)
    assert await answered_by(gateway, "/x", gateway=INNER) == "inner"
    gateway.write("inner.yaml", [m.gateway("inner", listeners=INNER_LISTENERS)])
    await gateway.answers("/x", port=8080, host="more.example.com", gateway=INNER)
