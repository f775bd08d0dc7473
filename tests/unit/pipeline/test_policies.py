# pyright: standard, reportAttributeAccessIssue=false
"""Policies recompute what they concern, no more; and requirements outlive the last route that names them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication

from controlplane.api.load import key_of
from controlplane.api.meta import ObjectKey
from controlplane.engine import LINGER_S, Engine, Step
from controlplane.pipeline import Pipeline
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.xds import resources as xds
from tests.e2e.policy_manifests import ENVOY_GATEWAY, limits, secret, security, target
from tests.support import manifests as m
from tests.support.tokens import SigningKey, jwks
from tests.unit.pipeline.driver import put, stabilise

KEYS = (SigningKey.make("a"), SigningKey.make("b"))
URI = "https://issuer.example/keys"
REMOTE = {"providers": [{"name": "main", "remoteJWKS": {"uri": URI}}]}
BASE = [m.gateway_class(), m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1")]


def routed(routes: int) -> Pipeline:
    pipeline = Pipeline()
    for document in [*BASE, *(m.route(f"r{n}", [m.rule(f"/r{n}", "one")]) for n in range(routes))]:
        put(pipeline, document)
    stabilise(pipeline)
    pipeline.graph.recomputed.clear()
    return pipeline


def inline(key: SigningKey, **more: Any) -> dict[str, Any]:
    return {"providers": [{"name": "main", "localJWKS": {"inline": json.dumps(jwks(key))}, **more}]}


def per_day(requests: int) -> dict[str, Any]:
    return {"global": {"rules": [{"limit": {"requests": requests, "unit": "Day"}}]}}


def test_a_policy_of_one_route_recomputes_that_route_alone() -> None:
    pipeline = routed(20)
    put(pipeline, security("p1", target("HTTPRoute", "r7"), authorization={"defaultAction": "Allow"}))
    stabilise(pipeline)
    counts = pipeline.graph.recomputed
    assert (counts["own policies"], counts["own overlays"], counts["virtual host"]) == (1, 1, 1)
    assert counts["compiled route"] == counts["pieces"] == 0
    assert counts["listener"] == counts["cluster"] == counts["endpoints"] == 0


def test_new_keys_of_an_issuer_touch_the_extension_and_no_route() -> None:
    pipeline = routed(20)
    put(pipeline, security("p1", target("Gateway", "edge"), jwt=REMOTE))
    pipeline.objects.key_sets.set(URI, json.dumps(jwks(KEYS[0])))
    stabilise(pipeline)
    pipeline.graph.recomputed.clear()
    pipeline.objects.key_sets.set(URI, json.dumps(jwks(*KEYS)))
    stabilise(pipeline)
    counts = pipeline.graph.recomputed
    assert counts["jwt extension"] == 1
    assert counts["overlay"] == counts["pieces"] == counts["virtual host"] == 0


def test_a_secret_of_keys_recomputes_only_the_routes_that_it_guards() -> None:
    pipeline = routed(20)
    auth = {"credentialRefs": [{"name": "keys"}], "extractFrom": [{"headers": ["x-key"]}]}
    put(pipeline, secret("keys", acme="one"))
    put(pipeline, security("p1", target("HTTPRoute", "r7"), apiKeyAuth=auth))
    stabilise(pipeline)
    pipeline.graph.recomputed.clear()
    put(pipeline, secret("keys", acme="two"))
    stabilise(pipeline)
    counts = pipeline.graph.recomputed
    assert (counts["own overlays"], counts["pieces"], counts["virtual host"]) == (1, 0, 1)


def test_no_policy_touches_a_listener() -> None:
    pipeline = routed(2)
    (before,) = (dict(s.of_type(xds.LISTENER)) for s in pipeline.snapshots.current().values())
    put(pipeline, security("p1", target("Gateway", "edge"), jwt=inline(KEYS[0]), consumers={}))
    put(pipeline, limits("p2", per_day(1), target("Gateway", "edge")))
    stabilise(pipeline)
    (after,) = (dict(s.of_type(xds.LISTENER)) for s in pipeline.snapshots.current().values())
    assert after == before


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(engine: Engine, *documents: dict[str, Any], removed: Sequence[ObjectKey] = ()) -> Step:
    found = [RawObject(key, each, Origin("a.yaml")) for each in documents if (key := key_of(each)) is not None]
    return engine.apply(Changes(tuple(found), tuple(removed)))


def requirements(engine: Engine) -> set[str]:
    (snapshot,) = engine.pipeline.snapshots.current().values()
    body = snapshot.of_type(xds.EXTENSION_CONFIG)["dragoman/jwt"].body
    config = JwtAuthentication.FromString(TypedExtensionConfig.FromString(body).typed_config.value)
    return set(config.requirement_map)


def test_a_requirement_outlives_the_last_route_that_names_it_for_a_minute() -> None:
    clock = Clock()
    engine = Engine(bind=bind, now=lambda: datetime.now(UTC), clock=clock)
    told(engine, *BASE, m.route("r1", [m.rule("/", "one")]), security("r1", jwt=inline(KEYS[0])))
    (first,) = requirements(engine)
    step = told(engine, security("r1", jwt=inline(KEYS[1])))
    assert first in requirements(engine)
    assert len(requirements(engine)) == 2
    assert "demo/edge" in step.snapshots
    clock.now += LINGER_S - 1
    assert not engine.age().snapshots
    clock.now += 2
    assert engine.age().snapshots
    (second,) = requirements(engine)
    assert second != first
    policy = key_of(security("r1"))
    assert policy is not None
    told(engine, removed=[policy])
    assert requirements(engine) == {second}
    clock.now += LINGER_S + 1
    engine.age()
    assert requirements(engine) == set()


def test_a_requirement_that_was_sent_before_a_restart_outlives_it_for_a_minute() -> None:
    route = [*BASE, m.route("r1", [m.rule("/", "one")])]
    before = told(Engine(bind=bind, now=lambda: datetime.now(UTC)), *route, security("r1", jwt=inline(KEYS[0])))
    clock = Clock()
    engine = Engine(bind=bind, now=lambda: datetime.now(UTC), clock=clock)
    (snapshot,) = (each for owner, each in before.snapshots.items() if owner == "demo/edge")
    assert snapshot is not None
    engine.carry_over({"demo/edge": snapshot.of_type(xds.EXTENSION_CONFIG)["dragoman/jwt"].body, "demo/other": b"\xff"})
    told(engine, *route, security("r1", jwt=inline(KEYS[1])))
    assert len(requirements(engine)) == 2
    clock.now += LINGER_S - 1
    assert not engine.age().snapshots
    clock.now += 2
    assert engine.age().snapshots
    assert len(requirements(engine)) == 1


def test_policies_of_the_services_are_named_by_their_content() -> None:
    pipeline = routed(2)
    put(pipeline, limits("p1", per_day(1), target("HTTPRoute", "r0"), api=ENVOY_GATEWAY))
    stabilise(pipeline)
    served = pipeline.guards.snapshots.current()["dragoman.services/ratelimit"].of_type(xds.RATE_LIMIT_CONFIG)
    (name,) = served
    assert name.startswith("demo/p1/")
    put(pipeline, limits("p1", per_day(2), target("HTTPRoute", "r0")))
    pipeline.delete_object(ObjectKey("gateway.envoyproxy.io", "BackendTrafficPolicy", "demo", "p1"))
    stabilise(pipeline)
    (changed,) = pipeline.guards.snapshots.current()["dragoman.services/ratelimit"].of_type(xds.RATE_LIMIT_CONFIG)
    assert changed != name


def test_what_the_service_rejects_of_limits_is_traced_to_all_policies_that_it_was_made_of() -> None:
    pipeline = routed(1)
    own, above = limits("r0", per_day(1)), limits("edge", per_day(2), target("Gateway", "edge"), api=ENVOY_GATEWAY)
    own["spec"]["mergeType"] = "StrategicMerge"
    for each in (own, above):
        put(pipeline, each)
    stabilise(pipeline)
    served = pipeline.guards.snapshots.current()["dragoman.services/ratelimit"].of_type(xds.RATE_LIMIT_CONFIG)
    keys = [str(key_of(each)) for each in (own, above)]
    assert sorted(sorted(each.origins) for each in served.values()) == [sorted(keys), [keys[1]]]


def test_a_policy_that_names_a_target_and_selects_it_too_is_no_rival_of_itself() -> None:
    pipeline = routed(0)
    route = m.route("r1", [m.rule("/", "one")])
    route["metadata"]["labels"] = {"team": "a"}
    policy = limits("p1", per_day(1), target("HTTPRoute", "r1"))
    policy["spec"]["targetSelectors"] = [{"kind": "HTTPRoute", "matchLabels": {"team": "a"}}]
    for each in (route, policy):
        put(pipeline, each)
    stabilise(pipeline)
    key = key_of(policy)
    assert key is not None
    (parent,) = pipeline.statuses.current()[key].parents
    assert [(each.type, each.status) for each in parent.conditions] == [("Accepted", "True")]


def test_a_gateway_with_which_a_route_merges_nothing_is_not_told_so() -> None:
    pipeline = routed(0)
    route = m.route("r1", [m.rule("/", "one")])
    route["spec"]["parentRefs"] = [{"name": "edge"}, {"name": "other"}]
    policy = limits("r1", per_day(1))
    policy["spec"]["mergeType"] = "StrategicMerge"
    for each in (m.gateway("other"), route, policy, limits("edge", per_day(2), target("Gateway", "edge"))):
        put(pipeline, each)
    stabilise(pipeline)
    key = key_of(policy)
    assert key is not None
    told = {each.ref.name: [c.type for c in each.conditions] for each in pipeline.statuses.current()[key].parents}
    assert told == {"edge": ["Accepted", "Merged"], "other": ["Accepted"]}


def test_limits_of_what_is_in_flight_stay_until_it_has_ended() -> None:
    pipeline = routed(1)
    rule = {"limit": {"requests": 5, "unit": "Second"}, "algorithm": "Concurrency"}
    for lease, expected in (("10m", 600.0), ("24h", 3600.0)):
        put(pipeline, limits("r0", {"global": {"rules": [{**rule, "leaseTime": lease}]}}))
        stabilise(pipeline)
        served = pipeline.guards.snapshots.current()["dragoman.services/ratelimit"].of_type(xds.RATE_LIMIT_CONFIG)
        assert [each.linger_s for each in served.values()] == [expected]


def test_a_policy_of_a_gateway_without_http_says_that_it_has_no_effect() -> None:
    pipeline = routed(0)
    listeners = [{"name": "raw", "port": 5432, "protocol": "TCP"}, {"name": "web", "port": 80, "protocol": "HTTP"}]
    put(pipeline, m.gateway(listeners=listeners))
    told: dict[str | None, list[str]] = {}
    for section in ("raw", "web", None):
        policy = limits(f"p-{section}".lower(), per_day(1), target("Gateway", "edge", section))
        put(pipeline, policy)
        stabilise(pipeline)
        key = key_of(policy)
        assert key is not None
        status = pipeline.statuses.current()[key]
        told[section] = [each.type for each in (*status.conditions, *(c for p in status.parents for c in p.conditions))]
    assert told == {"raw": ["NotSupported"], "web": ["Accepted"], None: ["Accepted"]}
