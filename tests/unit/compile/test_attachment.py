"""Where a route is attached, and what it is told (Gateway API: ParentReference, AllowedRoutes)."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.gateway import Gateway
from controlplane.api.httproute import HTTPRoute
from controlplane.api.load import load
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.attachment import Attachment, attach
from controlplane.compile.gateway import GatewayListener, listeners
from tests.support import manifests as m
from tests.unit.compile.view import PlainView

EDGE = ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "edge")


def listener(name: str, port: int = 80, hostname: str | None = None, **allowed: Any) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": port, "protocol": "HTTP", **host, "allowedRoutes": allowed}


def attached(
    *parents: dict[str, Any],
    on: list[dict[str, Any]],
    hostnames: list[str] | None = None,
    namespace: str = "demo",
    beside: tuple[m.Manifest, ...] = (),
) -> Attachment:
    spec = {"parentRefs": [{"name": "edge", "namespace": "demo", **each} for each in parents or ({},)]}
    document = m.manifest(
        m.GATEWAY_API, "HTTPRoute", "shop", {**spec, "hostnames": hostnames or []}, namespace=namespace
    )
    view = PlainView(*beside)
    gateway, route = load(m.gateway(listeners=on)).object, load(document).object
    assert isinstance(gateway, Gateway)
    assert isinstance(route, HTTPRoute)
    judged = listeners(view, gateway)

    def ours(key: ObjectKey) -> tuple[ObjectKey, tuple[GatewayListener, ...]] | None:
        return (EDGE, judged) if key == EDGE else None

    return attach(view, route, ours)


def places(found: Attachment) -> dict[str, tuple[str, ...]]:
    return {place.listener: place.domains for place in found.places}


def verdicts(found: Attachment) -> list[tuple[str, str]]:
    return [(parent.accepted.reason, parent.accepted.field) for parent in found.parents]


def test_a_route_is_on_every_listener_that_lets_it_in() -> None:
    found = attached(on=[listener("a"), listener("b", 8080)])
    assert places(found) == {"a": ("*",), "b": ("*",)}
    assert verdicts(found) == [("Accepted", "")]


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ({"sectionName": "a"}, {"a"}),
        ({"port": 8080}, {"b", "c"}),
        ({"sectionName": "b", "port": 8080}, {"b"}),
        ({"sectionName": "a", "port": 8080}, set[str]()),
        ({"sectionName": "nowhere"}, set[str]()),
        ({"port": 9}, set[str]()),
    ],
)
def test_a_parent_reference_may_name_a_listener_or_a_port(parent: dict[str, Any], expected: set[str]) -> None:
    found = attached(parent, on=[listener("a"), listener("b", 8080), listener("c", 8080, "c.example.com")])
    assert places(found).keys() == expected
    reason, field = ("Accepted", "") if expected else ("NoMatchingParent", "spec.parentRefs[0].sectionName")
    assert verdicts(found) == [(reason, field)]


def test_each_parent_reference_has_its_own_verdict() -> None:
    on = [listener("a"), listener("b", 8080, "b.example.com")]
    found = attached({"sectionName": "a"}, {"sectionName": "b"}, on=on, hostnames=["a.example.com"])
    assert places(found) == {"a": ("a.example.com",)}
    assert verdicts(found) == [("Accepted", ""), ("NoMatchingListenerHostname", "spec.hostnames")]
    assert [parent.title for parent in found.parents] == ["Gateway demo/edge/a", "Gateway demo/edge/b"]


def test_a_gateway_of_somebody_else_is_none_of_our_business() -> None:
    assert attached({"name": "other"}, on=[listener("a")], beside=(m.gateway("other"),)) == Attachment()
    assert attached({"kind": "Service", "group": ""}, on=[listener("a")]) == Attachment()


def test_a_gateway_that_does_not_exist_is_told() -> None:
    (missing,) = attached({"name": "edgee"}, on=[listener("a")]).missing
    assert (missing.status, missing.reason, missing.field) == ("False", "NoMatchingParent", "spec.parentRefs[0].name")
    assert missing.message == "Gateway demo/edgee does not exist"


TEAM = {"matchLabels": {"team": "shop"}}


@pytest.mark.parametrize(
    ("allowed", "namespace", "expected"),
    [
        ({}, "demo", True),
        ({}, "other", False),
        ({"namespaces": {"from": "Same"}}, "other", False),
        ({"namespaces": {"from": "All"}}, "other", True),
        ({"namespaces": {"from": "Selector", "selector": TEAM}}, "other", True),
        ({"namespaces": {"from": "Selector", "selector": TEAM}}, "demo", False),
        ({"namespaces": {"from": "Selector", "selector": TEAM}}, "unknown", False),
        ({"kinds": [{"kind": "HTTPRoute"}]}, "demo", True),
        ({"kinds": [{"kind": "GRPCRoute"}]}, "demo", False),
        ({"kinds": [{"kind": "HTTPRoute", "group": "example.com"}]}, "demo", False),
    ],
)
def test_a_listener_lets_in_the_namespaces_and_kinds_that_it_allows(
    allowed: dict[str, Any], namespace: str, expected: bool
) -> None:
    labelled = m.manifest("v1", "Namespace", "other", None, namespace=None, metadata={"labels": {"team": "shop"}})
    found = attached(on=[listener("a", **allowed)], namespace=namespace, beside=(labelled,))
    assert bool(found.places) == expected
    assert verdicts(found) == [("Accepted", "") if expected else ("NotAllowedByListeners", "spec.parentRefs[0]")]


def test_one_listener_that_serves_a_hostname_is_enough() -> None:
    on = [listener("a", 80, "a.example.com"), listener("wild", 80, "*.example.com")]
    found = attached(on=on, hostnames=["b.example.com"])
    assert places(found) == {"wild": ("b.example.com",)}
    assert verdicts(found) == [("Accepted", "")]
