"""What each kind of change recomputes among 1,000 routes, counted value by value: a budget that no clock can blur."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.pipeline import Pipeline, shards
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.unit.pipeline.driver import drop, put, stabilise

OURS = "dragoman.dev/v1alpha1"
AUTHORITY = Authority()
_PUBLISHED = {"resources": 1, "snapshot": 1}
_ROUTING = {"virtual host": 1, "virtual hosts": 1, "route configuration": 1, **_PUBLISHED}


def _listeners() -> list[dict[str, Any]]:
    labels = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "x"}}}}
    tls = {"certificateRefs": [{"name": "cert"}]}
    return [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com", "tls": tls},
        {"name": "team", "port": 81, "protocol": "HTTP", "allowedRoutes": labels},
    ]


def _service(number: int, *ports: dict[str, Any]) -> dict[str, Any]:
    made = m.service(f"s{number}")
    made["spec"]["ports"] = [{"name": "http", "port": 80}, *ports]
    return made


def _endpoints(number: int, address: str) -> dict[str, Any]:
    made = m.endpoint_slice(f"s{number}", address)
    made["ports"] = [{"name": "http", "port": 3000}]
    return made


def _route(index: int, path: str = "") -> dict[str, Any]:
    rules = [m.rule(path or f"/p{index}", f"s{index % 50}")]
    made = m.route(f"r{index}", rules, hostnames=[f"h{index // 10}.example.com"])
    parents = ("http", "team") if index < 100 else ("http",)
    made["spec"]["parentRefs"] = [{"name": "edge", "sectionName": section} for section in parents]
    return made


@pytest.fixture(scope="module")
def made() -> Pipeline:
    pipeline = Pipeline()
    put(pipeline, m.gateway_class())
    put(pipeline, m.gateway(listeners=_listeners()))
    put(pipeline, AUTHORITY.leaf("a.example.com").secret("demo", "cert"))
    put(pipeline, m.manifest("v1", "Namespace", "demo", None, namespace=None, metadata={"labels": {"team": "x"}}))
    for number in range(50):
        put(pipeline, _service(number))
        put(pipeline, _endpoints(number, f"192.0.2.{number + 1}"))
    for index in range(1000):
        put(pipeline, _route(index))
    put(pipeline, m.manifest("v1", "Secret", "keys", None, stringData={"ann": "1"}))
    auth = {"credentialRefs": [{"name": "keys"}], "extractFrom": [{"headers": ["x-key"]}]}
    put(pipeline, _policy("keys", "HTTPRoute", "r700", apiKeyAuth=auth))
    stabilise(pipeline)
    return pipeline


def _policy(name: str, kind: str, target: str, *, section: str | None = None, **spec: Any) -> dict[str, Any]:
    ref = {"group": "gateway.networking.k8s.io", "kind": kind, "name": target}
    where = {"targetRefs": [ref | ({"sectionName": section} if section else {})]}
    return m.manifest(OURS, "SecurityPolicy", name, {**where, **spec})


def _counted(pipeline: Pipeline) -> dict[str, int]:
    pipeline.graph.recomputed.clear()
    stabilise(pipeline)
    return {name: count for name, count in pipeline.graph.recomputed.items() if count}


def test_a_route_that_is_edited(made: Pipeline) -> None:
    put(made, _route(500, "/moved"))
    of_route = ("in force", "compiled route", "attachment", "attached routes", "pieces")
    assert _counted(made) == {**dict.fromkeys(of_route, 1), **_ROUTING, "status": 1}


def test_endpoints_that_change(made: Pipeline) -> None:
    (before,) = made.snapshots.current().values()
    put(made, _endpoints(7, "192.0.2.99"))
    of_endpoints = ("in force", "slices", "endpoints", "served endpoints", "assignments", "status")
    assert _counted(made) == {**dict.fromkeys(of_endpoints, 1), **_PUBLISHED}
    (after,) = made.snapshots.current().values()
    changed = {
        (type_url, name)
        for type_url, found in after.resources.items()
        for name, resource in found.items()
        if resource is not before.of_type(type_url).get(name)
    }
    assert changed == {(xds.ENDPOINT, "demo/Service/s7/80/default")}


def test_a_policy_of_a_route_that_comes_changes_and_goes(made: Pipeline) -> None:
    of_policy = ("in force", "compiled policy", "own policies", "own overlays", "uses", "status")
    policy = _policy("own", "HTTPRoute", "r300", authorization={"defaultAction": "Deny"})
    put(made, policy)
    come = _counted(made)
    assert come == {**dict.fromkeys(of_policy, 1), **_ROUTING, "targeted": 1, "selecting": 1}
    put(made, _policy("own", "HTTPRoute", "r300", authorization={"defaultAction": "Allow"}))
    assert _counted(made) == {**dict.fromkeys(of_policy, 1), **_ROUTING, "targeted": 1, "selecting": 1}
    drop(made, policy)
    assert _counted(made) == _ROUTING


@pytest.mark.parametrize(("section", "listeners", "hosts"), [(None, 2, 113), ("http", 1, 101)])
def test_a_policy_of_a_gateway_touches_each_host_and_no_route(
    made: Pipeline, section: str | None, listeners: int, hosts: int
) -> None:
    routes = ("pieces", "attachment", "compiled route", "attached routes", "placed routes", "own overlays")
    policy = _policy("wide", "Gateway", "edge", section=section, cors={"allowOrigins": ["*"]})
    edited = _policy("wide", "Gateway", "edge", section=section, cors={"allowOrigins": ["https://a.example"]})
    for step in (lambda: put(made, policy), lambda: put(made, edited), lambda: drop(made, policy)):
        step()
        counted = _counted(made)
        assert {name: counted[name] for name in routes if name in counted} == {"own overlays": 1}, counted
        assert counted["virtual host"] == hosts
        assert counted["overlay"] == listeners
        assert sum(counted.values()) < hosts + 40


def test_a_certificate_that_is_renewed_touches_its_secret_and_no_route(made: Pipeline) -> None:
    put(made, AUTHORITY.leaf("a.example.com").secret("demo", "cert"))
    counted = _counted(made)
    assert counted.pop("secret") == 1
    assert counted == {"in force": 1, "listeners": 1, "status": 1, **_PUBLISHED}


def test_a_secret_of_keys_that_changes_touches_the_route_that_it_guards(made: Pipeline) -> None:
    put(made, m.manifest("v1", "Secret", "keys", None, stringData={"ann": "2"}))
    of_policy = ("in force", "compiled policy", "own policies", "own overlays", "uses")
    assert _counted(made) == {**dict.fromkeys(of_policy, 1), **_ROUTING, "status": 2}


def test_another_port_of_a_service_compiles_the_routes_to_it_and_encodes_none(made: Pipeline) -> None:
    put(made, _service(7, {"name": "admin", "port": 8081}))
    of_service = ("in force", "cluster", "endpoints", "authorities", "blocked cluster", "status")
    assert _counted(made) == {**dict.fromkeys(of_service, 1), "compiled route": 20}


def test_labels_of_a_namespace_that_change_are_looked_at_by_the_routes_of_listeners_that_ask_for_them(
    made: Pipeline,
) -> None:
    labels = {"labels": {"team": "x", "more": "y"}}
    put(made, m.manifest("v1", "Namespace", "demo", None, namespace=None, metadata=labels))
    assert _counted(made) == {"in force": 1, "attachment": 100, "status": 1}


def test_in_shards_an_edit_assembles_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARDS_FROM", 50)
    pipeline = Pipeline()
    put(pipeline, m.gateway_class())
    put(pipeline, m.gateway())
    put(pipeline, m.service("s0"))
    for index in range(100):
        put(pipeline, m.route(f"r{index}", [m.rule("/a", "s0")], hostnames=[f"h{index}.example.com"]))
    stabilise(pipeline)
    (before,) = pipeline.snapshots.current().values()
    put(pipeline, m.route("r7", [m.rule("/b", "s0")], hostnames=["h7.example.com"]))
    assert _counted(pipeline)["virtual host"] == 1
    put(pipeline, m.route("r7", [m.rule("/a", "s0")], hostnames=["h7.example.com"]))
    assert _counted(pipeline)["virtual hosts"] == 1
    (after,) = pipeline.snapshots.current().values()
    assert after.of_type(xds.ROUTE) == before.of_type(xds.ROUTE)
