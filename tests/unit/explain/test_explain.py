"""What is said about a request: where it goes, why others do not have it, and whose each setting is."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.explain import Explanation, Request, explain
from controlplane.explain.filters import FIELDS_OF
from controlplane.explain.lines import lines
from controlplane.explain.request import normal_path, seen
from controlplane.explain.values import FIELDS
from controlplane.ir import Policies
from controlplane.pipeline import Pipeline
from controlplane.translate.filters import FILTERS
from tests.support import manifests as m
from tests.unit.pipeline.driver import put, stabilise

OURS = "dragoman.dev/v1alpha1"
EVERYWHERE = {"namespaces": {"from": "All"}}


def pipeline_of(*documents: m.Manifest) -> Pipeline:
    pipeline = Pipeline()
    for document in (m.gateway_class(), *documents):
        put(pipeline, document)
    stabilise(pipeline)
    return pipeline


def explained(pipeline: Pipeline, url: str, *headers: str, **how: Any) -> Explanation:
    method = how.pop("method", "GET")
    return explain(pipeline, Request.of(url, method=method, headers=headers), **how)


def targeting(kind: str, name: str, section: str | None = None) -> dict[str, Any]:
    ref = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    return {"targetRefs": [{**ref, **({"sectionName": section} if section else {})}]}


def key_auth(header: str) -> dict[str, Any]:
    return {"apiKeyAuth": {"credentialRefs": [{"name": "keys"}], "extractFrom": [{"headers": [header]}]}}


def text(explanation: Explanation) -> str:
    return "\n".join(line.text for line in lines(explanation))


WORLD = (m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1"))


def test_the_rule_the_backend_and_its_endpoints_are_named() -> None:
    pipeline = pipeline_of(*WORLD, m.route("r", [m.rule("/a", "one")]))
    found = explained(pipeline, "http://example.com/a/b?x=1")
    assert found.outcome.kind == "forward"
    (backend,) = found.outcome.backends
    assert (backend.cluster, backend.endpoints) == ("demo/Service/one/80/default", ("192.0.2.1:3000",))
    assert found.chosen is not None
    assert (found.chosen.source.object, found.chosen.source.field) == ("HTTPRoute demo/r", "spec.rules[0].matches[0]")
    assert found.listener is not None
    assert (found.listener.gateway, found.listener.name, found.listener.port) == ("demo/edge", "http", 80)


def test_of_each_candidate_it_is_said_why_it_does_not_match() -> None:
    strict = m.rule("/a", "one")
    strict["matches"][0] |= {
        "method": "POST",
        "headers": [{"name": "X-One", "value": "1"}],
        "queryParams": [{"name": "p", "value": "1"}],
    }
    pipeline = pipeline_of(*WORLD, m.route("r", [strict, m.rule("/b", "one"), m.rule("/", "one")]))
    found = explained(pipeline, "http://example.com/a?p=2", "x-one: 2")
    assert [each.chosen for each in found.candidates] == [False, False, True]
    verdicts = {check.what: (check.given, check.holds) for check in found.candidates[0].checks}
    assert verdicts == {
        "path": ("/a", True),
        "method": ("GET", False),
        "header x-one": ("2", False),
        "query parameter p": ("2", False),
    }
    assert "method is GET, wanted POST; header x-one is 2, wanted 1" in text(found)


def test_without_a_match_the_nearest_comes_first_and_the_rest_is_counted() -> None:
    rules = [m.rule(f"/orders/{name}", "one") for name in ("aaaa", "bbbb", "cccc")]
    rules[2]["matches"][0]["method"] = "POST"
    pipeline = pipeline_of(*WORLD, m.route("r", rules))
    found = explained(pipeline, "http://example.com/orders/cccc", most=2)
    assert (found.outcome.kind, found.outcome.status, found.chosen) == ("no route", 404, None)
    assert found.candidates[0].match == "POST /orders/cccc"
    assert (len(found.candidates), found.omitted) == (2, 1)


def test_a_route_that_is_not_attached_is_named_with_the_reason() -> None:
    lost = m.route("lost", [m.rule("/a", "one")])
    lost["spec"]["parentRefs"][0]["sectionName"] = "nowhere"
    pipeline = pipeline_of(*WORLD, lost, m.route("other", [m.rule("/a", "one")], hostnames=["other.test"]))
    found = explained(pipeline, "http://example.com/a")
    assert found.outcome.status == 404
    assert {miss.source.object: miss.why for miss in found.misses} == {
        "HTTPRoute demo/lost": "spec.parentRefs[0].sectionName: Gateway demo/edge has no listener of name nowhere",
        "HTTPRoute demo/other": "its hostnames are other.test",
    }


def test_a_route_that_is_not_attached_is_named_where_another_has_its_requests() -> None:
    lost = m.route("lost", [m.rule("/a", "one")])
    lost["spec"]["parentRefs"][0]["sectionName"] = "nowhere"
    pipeline = pipeline_of(*WORLD, lost, m.route("all", [m.rule("/", "one")]))
    found = explained(pipeline, "http://example.com/a")
    assert found.chosen is not None
    assert [miss.source.object for miss in found.misses] == ["HTTPRoute demo/lost"]


def test_every_field_in_force_is_told_with_the_policy_that_it_is_from() -> None:
    pipeline = pipeline_of(
        *WORLD,
        m.route("r", [m.rule("/", "one")]),
        m.manifest("v1", "Secret", "keys", None, stringData={"ann": "the-key-of-ann"}),
        m.manifest(OURS, "SecurityPolicy", "gateway", {**targeting("Gateway", "edge"), **key_auth("x-key")}),
        m.manifest(
            OURS,
            "SecurityPolicy",
            "route",
            {**targeting("HTTPRoute", "r"), "cors": {"allowOrigins": ["https://a.test"]}},
        ),
        m.manifest(
            OURS,
            "BackendTrafficPolicy",
            "limits",
            {
                **targeting("Gateway", "edge", "http"),
                "rateLimit": {"local": {"rules": [{"limit": {"requests": 5, "unit": "Minute"}}]}},
            },
        ),
    )
    found = explained(pipeline, "http://example.com/")
    sources = {each.field: (each.source.object, each.source.field) for each in found.policies}
    assert sources == {
        "cors": ("SecurityPolicy demo/route", "spec.cors"),
        "api_keys": ("SecurityPolicy demo/gateway", "spec.apiKeyAuth"),
        "local_limit": ("BackendTrafficPolicy demo/limits", "spec.rateLimit.local"),
    }
    order = [each.name.rpartition(".")[2] for each in found.filters]
    assert order == ["dragoman/identity-headers", "cors", "api_key_auth", "local_ratelimit", "router"]
    assert "the-key-of-ann" not in text(found) + str(found.to_json())


def test_a_field_that_a_gateway_overrides_is_noted() -> None:
    pipeline = pipeline_of(
        *WORLD,
        m.route("r", [m.rule("/", "one")]),
        m.manifest("v1", "Secret", "keys", None, stringData={"ann": "the-key-of-ann"}),
        m.manifest(OURS, "SecurityPolicy", "gateway", {**targeting("Gateway", "edge"), **key_auth("x-key")}),
        m.manifest(OURS, "SecurityPolicy", "route", {**targeting("HTTPRoute", "r"), **key_auth("x-other")}),
    )
    found = explained(pipeline, "http://example.com/")
    assert [each.source.object for each in found.policies] == ["SecurityPolicy demo/gateway"]
    assert any("SecurityPolicy demo/route spec.apiKeyAuth: Overridden" in note for note in found.notes)


def test_a_policy_that_never_was_good_is_noted_where_it_may_be_meant() -> None:
    limit = {"limit": {"requests": -1, "unit": "Minute"}}
    spec = {**targeting("HTTPRoute", "r"), "rateLimit": {"global": {"rules": [limit]}}}
    here, elsewhere = (
        m.manifest(OURS, "BackendTrafficPolicy", "p", spec, namespace=name) for name in ("demo", "other")
    )
    pipeline = pipeline_of(*WORLD, m.route("r", [m.rule("/a", "one")]), here, elsewhere)
    (note,) = explained(pipeline, "http://example.com/a").notes
    assert note.startswith(
        "BackendTrafficPolicy demo/p has faults, and is not in force: "
        "spec.rateLimit.global.rules[0].limit.requests: expected at least 0"
    )


def test_a_guard_that_cannot_be_put_in_force_is_told_as_the_answer() -> None:
    broken = {**targeting("HTTPRoute", "r"), "basicAuth": {"users": {"name": "keys"}}}
    pipeline = pipeline_of(*WORLD, m.route("r", [m.rule("/", "one")]), m.manifest(OURS, "SecurityPolicy", "s", broken))
    found = explained(pipeline, "http://example.com/")
    assert (found.outcome.kind, found.outcome.status) == ("deny", 500)
    assert [(each.field, each.source.object) for each in found.policies] == [("deny", "SecurityPolicy demo/s")]


def test_a_backend_that_is_not_there_is_told_with_the_field() -> None:
    pipeline = pipeline_of(*WORLD, m.route("r", [m.rule("/", "missing")]))
    found = explained(pipeline, "http://example.com/")
    assert (found.outcome.kind, found.outcome.status) == ("respond", 500)
    assert "spec.rules[0].backendRefs[0].name: Service demo/missing does not exist" in found.outcome.words


def test_a_service_without_endpoints_answers_503() -> None:
    pipeline = pipeline_of(m.gateway(), m.service("one"), m.route("r", [m.rule("/", "one")]))
    assert "no endpoint: answered with 503" in explained(pipeline, "http://example.com/").outcome.words


def test_the_port_may_be_that_of_the_listener_or_the_one_it_is_bound_to() -> None:
    pipeline = pipeline_of(*WORLD, m.route("r", [m.rule("/", "one")]))
    for url in ("http://example.com/", "http://127.0.0.1:10080/", "http://example.com:10080/"):
        assert explained(pipeline, url).chosen is not None, url
    missing = explained(pipeline, "http://example.com:81/")
    assert missing.outcome.kind == "unreachable"
    assert (
        "nobody listens on port 81; there are the ports: 80 of demo/edge (bound to 127.0.0.1:10080)"
        in missing.outcome.words
    )
    assert explained(pipeline, "http://127.0.0.2:10080/").outcome.kind == "unreachable"


def test_where_several_gateways_have_a_port_the_one_that_is_meant_must_be_said() -> None:
    pipeline = pipeline_of(*WORLD, m.gateway("second"), m.route("r", [m.rule("/", "one")], parent="second"))
    assert explained(pipeline, "http://example.com/").outcome.kind == "ambiguous"
    assert explained(pipeline, "http://example.com/", gateway="demo/second").chosen is not None
    assert explained(pipeline, "http://example.com/", gateway="demo/edge").chosen is None


def test_a_listener_may_be_told_by_name() -> None:
    listeners = [
        {"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": EVERYWHERE}
        for name, port in (("one", 8001), ("two", 8002))
    ]
    pipeline = pipeline_of(m.gateway(listeners=listeners), *WORLD[1:], m.route("r", [m.rule("/", "one")]))
    found = explained(pipeline, "http://example.com/", listener="two")
    assert found.listener is not None
    assert (found.listener.name, found.listener.port) == ("two", 8002)


@pytest.mark.parametrize(
    ("written", "normal"),
    [("/a/../b", "/b"), ("/a//b", "/a/b"), ("/%61", "/a"), ("/..", "/"), ("/a/.", "/a/"), ("/a%20b", "/a%20b")],
)
def test_routes_are_chosen_by_the_normal_form_of_a_path(written: str, normal: str) -> None:
    assert normal_path(written) == normal


def test_headers_of_the_gateways_own_are_not_seen_and_of_others_all_values_are() -> None:
    request = Request.of("http://h/?p=1&p=2", headers=["X-A: 1", "x-a: 2", "x-dragoman-user: eve"])
    sees = seen(request)
    assert sees.headers["x-a"] == ("1", "2")
    assert "x-dragoman-user" not in sees.headers
    assert sees.query == {"p": "1"}


@pytest.mark.parametrize("url", ["ftp://h/", "http:///x", "http://h:99999/"])
def test_a_url_that_cannot_be_asked_for_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request.of(url)


def test_every_filter_and_every_field_of_policies_has_words() -> None:
    """Whoever adds a filter or a field is told here to say where it comes from."""
    assert {module.NAME for module in FILTERS} == set(FIELDS_OF)
    assert set(FIELDS) == set(Policies.__slots__) - {"limit_scope", "origins"}
    assert {field for fields in FIELDS_OF.values() for field in fields} == set(FIELDS) - {"deny"}


def test_of_many_routes_those_of_the_same_path_are_shown_and_few_of_others() -> None:
    canary = m.rule("/cart", "one")
    canary["matches"][0]["headers"] = [{"name": "x-canary", "value": "yes"}]
    others = [m.route(f"o{at}", [m.rule(f"/other/{at}/{of}", "one") for of in range(16)]) for at in range(8)]
    alike = m.route("alike", [m.rule("/carts", "one"), m.rule("/card", "one")])
    pipeline = pipeline_of(*WORLD, *others, alike, m.route("r", [canary, m.rule("/cart", "one")]))
    found = explained(pipeline, "http://example.com/cart")
    assert [each.match for each in found.candidates] == [
        "/carts",
        "/cart header x-canary=yes",
        "/card",
        "/cart",
    ]
    assert found.omitted == 128
    lost = explained(pipeline, "http://example.com/nothing")
    assert (lost.outcome.status, len(lost.candidates)) == (404, 5)


def test_what_is_for_the_host_comes_first_among_what_is_not_served_however_much_there_is_elsewhere() -> None:
    lost = m.route("z-lost", [m.rule("/", "one")])
    lost["spec"]["parentRefs"][0]["sectionName"] = "nowhere"
    elsewhere = [m.route(f"r{at}", [m.rule("/", "one")], hostnames=[f"h{at}.test"]) for at in range(300)]
    same_path = m.route("y-path", [m.rule("/shop", "one")], hostnames=["b.test"])
    alike = m.route("x-alike", [m.rule("/", "one")], hostnames=["exmaple.com"])
    pipeline = pipeline_of(*WORLD, lost, same_path, alike, *elsewhere)
    found = explained(pipeline, "http://example.com/shop")
    assert [miss.source.object for miss in found.misses[:3]] == [
        "HTTPRoute demo/z-lost",
        "HTTPRoute demo/y-path",
        "HTTPRoute demo/x-alike",
    ]
    assert len(found.misses) == 5


@pytest.mark.parametrize(
    ("prefix", "value", "path", "becomes"),
    [
        ("/old", "/new", "/old/a", "/new/a"),
        ("/old", "/new", "/old", "/new"),
        ("/old", "/new/", "/old", "/new/"),
        ("/old", "/new/", "/old/a", "/new/a"),
        ("/old", "/", "/old/a", "/a"),
        ("/old", "/", "/old", "/"),
        ("/", "/new", "/a", "/new/a"),
    ],
)
def test_what_a_path_becomes_is_told_for_this_request(prefix: str, value: str, path: str, becomes: str) -> None:
    rule = m.rule(prefix, "one")
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}}
    rule["filters"] = [{"type": "URLRewrite", "urlRewrite": rewrite}]
    found = explained(pipeline_of(*WORLD, m.route("r", [rule])), f"http://example.com{path}?x=1")
    assert f"here {path} becomes {becomes}" in found.outcome.details
