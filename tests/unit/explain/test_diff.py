"""What a change would change: in routes, in faults, in resources."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from controlplane.api.load import key_of
from controlplane.engine import Engine
from controlplane.explain.diff import Diff, diff, lines
from controlplane.explain.summary import Summary, summary
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from tests.support import manifests as m

OURS = "dragoman.dev/v1alpha1"
WORLD = (m.gateway_class(), m.gateway(), m.service("one"), m.service("two"), m.endpoint_slice("one", "192.0.2.1"))


def of(*documents: m.Manifest) -> Summary:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    keyed = ((key_of(document), document) for document in (*WORLD, *documents))
    engine.apply(Changes(tuple(RawObject(key, document, Origin("all.yaml")) for key, document in keyed if key)))
    engine.resolve(dict.fromkeys(engine.pipeline.wanted_hosts(), ("192.0.2.9",)))
    return summary(engine)


def signs(changes: tuple[Any, ...]) -> list[tuple[str, str]]:
    return [(each.sign, each.subject) for each in changes]


def test_nothing_changes_between_what_is_the_same() -> None:
    route = m.route("r", [m.rule("/a", "one")])
    found = diff(of(route), of(route))
    assert not found
    assert [line.text for line in lines(found)] == ["nothing changes"]


def test_routes_that_come_go_and_lead_elsewhere_are_told() -> None:
    before = m.route("r", [m.rule("/a", "one"), m.rule("/b", "one"), m.rule("/c", "one")])
    after = m.route("r", [m.rule("/a", "one"), m.rule("/b", "two"), m.rule("/d", "one")])
    found = diff(of(before), of(after))
    assert signs(found.routes) == [
        ("~", "demo/edge http://*:80 /b"),
        ("-", "demo/edge http://*:80 /c"),
        ("+", "demo/edge http://*:80 /d"),
    ]
    assert found.routes[0].details == ("to: Service demo/one port 80 → Service demo/two port 80",)
    assert ("~", "demo/edge RouteConfiguration demo/edge/80") in signs(found.resources)
    assert ("+", "demo/edge Cluster demo/Service/two/80/default") in signs(found.resources)


def test_a_fault_that_appears_and_one_that_goes_are_told() -> None:
    bad, good = m.route("r", [m.rule("/a", "missing")]), m.route("r", [m.rule("/a", "one")])
    fault = "HTTPRoute demo/r spec.rules[0].backendRefs[0].name: Service demo/missing does not exist"
    assert signs(diff(of(good), of(bad)).faults) == [("+", fault)]
    assert signs(diff(of(bad), of(good)).faults) == [("-", fault)]


def test_a_policy_that_comes_into_force_is_told_on_the_route() -> None:
    ref = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
    limit = {"local": {"rules": [{"limit": {"requests": 5, "unit": "Minute"}}]}}
    policy = m.manifest(OURS, "BackendTrafficPolicy", "limits", {"targetRefs": [ref], "rateLimit": limit})
    route = m.route("r", [m.rule("/a", "one")])
    (change,) = diff(of(route), of(route, policy)).routes
    assert change.sign == "~"
    assert change.details == ("local_limit: none → 5 requests a minute; each Envoy counts for itself",)


def test_a_route_of_a_wide_hostname_is_told_once() -> None:
    wide = m.route("wide", [m.rule("/a", "one")])
    narrow = m.route("narrow", [m.rule("/b", "one")], hostnames=["a.example.com"])
    found = diff(of(narrow), of(narrow, wide))
    assert signs(found.routes) == [("+", "demo/edge http://*:80 /a")]


def test_a_summary_survives_json() -> None:
    made = of(m.route("r", [m.rule("/a", "one")]))
    assert TypeAdapter(Summary).validate_json(json.dumps(made.to_json())) == made
    assert diff(made, Summary()) != Diff()


def test_what_changes_alike_is_told_once() -> None:
    route = m.route("r", [m.rule(f"/{at}", "one") for at in range(16)])
    cors = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}]}
    policy = m.manifest(OURS, "SecurityPolicy", "p", {**cors, "cors": {"allowOrigins": ["https://a.example"]}})
    found = diff(of(route), of(route, policy))
    assert len(found.routes) == 16
    told = [line.text for line in lines(found)]
    assert told[:6] == [
        "Routes (~16)",
        "~ demo/edge http://*:80 /0",
        "~ demo/edge http://*:80 /1",
        "~ demo/edge http://*:80 /10",
        "~ and 13 more alike",
        "cors: none → browsers of https://a.example may call",
    ]
