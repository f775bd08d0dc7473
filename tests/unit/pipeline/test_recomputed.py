"""What an edit recomputes among many routes, counted."""

from __future__ import annotations

import json
from typing import Any

from controlplane.pipeline import Pipeline
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.support.tokens import SigningKey, jwks
from tests.unit.pipeline.driver import drop, put, stabilise

OURS = "dragoman.dev/v1alpha1"
URI = "https://issuer.example/keys"
_ROUTING = ("pieces", "overlay", "own overlays", "virtual host", "route configuration")


def _many(routes: int, *more: dict[str, Any], per_host: int = 10) -> Pipeline:
    pipeline = Pipeline()
    for document in (m.gateway_class(), m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1"), *more):
        put(pipeline, document)
    for index in range(routes):
        hosts = [f"h{index // per_host}.example.com"]
        put(pipeline, m.route(f"r{index}", [m.rule(f"/p{index}", "one")], hostnames=hosts))
    stabilise(pipeline)
    pipeline.graph.recomputed.clear()
    return pipeline


def _policy(name: str, *routes: str, **spec: Any) -> dict[str, Any]:
    refs = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route} for route in routes]
    return m.manifest(OURS, "SecurityPolicy", name, {"targetRefs": refs, **spec})


def _keys(name: str, *, namespace: str = "demo", **data: str) -> dict[str, Any]:
    return m.manifest("v1", "Secret", name, None, namespace=namespace, stringData=data)


def _key_auth(*secrets: str, namespace: str | None = None) -> dict[str, Any]:
    refs = [{"name": name, **({"namespace": namespace} if namespace else {})} for name in secrets]
    return {"apiKeyAuth": {"credentialRefs": refs, "extractFrom": [{"headers": ["x-key"]}]}}


def _tell(pipeline: Pipeline) -> dict[str, int]:
    stabilise(pipeline)
    found = {name: pipeline.graph.recomputed[name] for name in _ROUTING}
    pipeline.graph.recomputed.clear()
    return found


def test_a_security_policy_of_one_route_among_200_encodes_that_route_and_its_host_alone() -> None:
    guarded = _policy("p", "r7", authorization={"defaultAction": "Deny"})
    pipeline = _many(200, guarded)
    put(pipeline, _policy("p", "r7", authorization={"defaultAction": "Allow"}))
    assert _tell(pipeline) == {
        "pieces": 0,
        "overlay": 0,
        "own overlays": 1,
        "virtual host": 1,
        "route configuration": 1,
    }
    drop(pipeline, guarded)
    found = _tell(pipeline)
    assert (found["pieces"], found["overlay"], found["virtual host"]) == (0, 0, 1)


def test_new_keys_of_a_fetched_key_set_change_one_extension_and_nothing_else() -> None:
    provider = {"name": "main", "remoteJWKS": {"uri": URI}}
    pipeline = _many(200, _policy("p", "r7", "r8", jwt={"providers": [provider]}))
    pipeline.objects.key_sets.set(URI, json.dumps(jwks(SigningKey.make("a"))))
    stabilise(pipeline)
    (before,) = pipeline.snapshots.current().values()
    pipeline.graph.recomputed.clear()
    pipeline.objects.key_sets.set(URI, json.dumps(jwks(SigningKey.make("b"))))
    assert not any(_tell(pipeline).values())
    (after,) = pipeline.snapshots.current().values()
    changed = {
        (type_url, name)
        for type_url, found in after.resources.items()
        for name, resource in found.items()
        if resource != before.of_type(type_url)[name]
    }
    assert changed == {(xds.EXTENSION_CONFIG, "dragoman/jwt")}


def test_a_secret_of_api_keys_recomputes_the_routes_that_use_it_and_no_others() -> None:
    policies = [_policy("p1", "r7", "r27", **_key_auth("a")), _policy("p2", "r8", **_key_auth("b"))]
    pipeline = _many(200, *policies, _keys("a", ann="1"), _keys("b", bob="2"))
    put(pipeline, _keys("a", ann="3"))
    found = _tell(pipeline)
    assert (found["pieces"], found["own overlays"], found["virtual host"]) == (0, 2, 2)


def test_a_secret_that_nothing_uses_recomputes_no_route() -> None:
    pipeline = _many(50, _policy("p1", "r7", **_key_auth("a")), _keys("a", ann="1"))
    put(pipeline, _keys("unused", ann="3"))
    assert not any(_tell(pipeline).values())


def test_a_grant_that_goes_touches_the_routes_that_relied_on_it() -> None:
    grant = m.grant("other")
    far = [m.route(f"far{n}", [m.rule(f"/far{n}", "far", namespace="other")]) for n in range(3)]
    pipeline = _many(200, grant, m.service("far", namespace="other"), *far)
    drop(pipeline, grant)
    stabilise(pipeline)
    counts = pipeline.graph.recomputed
    assert (counts["compiled route"], counts["pieces"]) == (3, 3)


def test_an_edit_in_a_matcher_tree_encodes_one_alternative() -> None:
    pipeline = _many(150, per_host=150)
    put(pipeline, m.route("r7", [m.rule("/moved", "one")], hostnames=["h0.example.com"]))
    assert _tell(pipeline) == {
        "pieces": 1,
        "overlay": 0,
        "own overlays": 0,
        "virtual host": 1,
        "route configuration": 1,
    }


def test_a_policy_of_a_route_in_a_matcher_tree_encodes_one_alternative() -> None:
    pipeline = _many(150, per_host=150)
    put(pipeline, _policy("p", "r7", authorization={"defaultAction": "Deny"}))
    found = _tell(pipeline)
    assert (found["pieces"], found["own overlays"], found["virtual host"]) == (0, 1, 1)
