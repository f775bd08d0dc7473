from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.load import key_of, load
from controlplane.api.meta import ObjectKey
from tests.unit.api.manifests import accept, fault, gateway, read, route

BACKEND = "backendRefs: [{name: web, port: 80}]"


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        (
            "backendRefs: [{name: web, port: '80'}]",
            "backendRefs[0].port",
            "expected a whole number; got the string '80'",
        ),
        (
            "backendRefs: [{name: web, port: 70000}]",
            "backendRefs[0].port",
            "expected at most 65535; got the number 70000",
        ),
        ("backendRefs: [{name: web}]", "backendRefs[0].port", "a reference to a Service needs a port"),
        ("backendRefs: [{port: 80}]", "backendRefs[0].name", "required field is missing"),
        ("backendRefs: {name: web}", "backendRefs", "expected a list; got a mapping"),
        ("backendRefs: [web]", "backendRefs[0]", "expected a mapping; got the string 'web'"),
        ("backendRef: []", "backendRef", "unknown field; did you mean `backendRefs`?"),
        ("backend_refs: []", "backend_refs", "unknown field; did you mean `backendRefs`?"),
        ("matches: [{path: {value: foo}}]", "matches[0].path.value", "starts with '/'; got 'foo'"),
        ("matches: [{path: {value: /a//b}}]", "matches[0].path.value", "must not contain '//'"),
        ("matches: [{path: {value: /a/../b}}]", "matches[0].path.value", "must not contain '/../'"),
        ("matches: [{path: {value: /a/..}}]", "matches[0].path.value", "must not contain '/..'"),
        ("matches: [{path: {value: /a%2Fb}}]", "matches[0].path.value", "must not contain '%2F'"),
        ("matches: [{path: {value: /a#b}}]", "matches[0].path.value", "valid URI characters"),
        ("matches: [{path: {type: Prefix}}]", "matches[0].path.type", "expected one of Exact, PathPrefix, RegularExpr"),
        ("matches: [{method: get}]", "matches[0].method", "expected one of GET, HEAD"),
        ("matches: [{headers: [{name: 'a b', value: c}]}]", "matches[0].headers[0].name", "expected a header name"),
        ('matches: [{headers: [{name: a, value: "b\\nc"}]}]', "matches[0].headers[0].value", "control characters"),
        ("matches: [{headers: [{name: a, value: yes}]}]", "matches[0].headers[0].value", "quote them"),
        ("matches: [{headers: [{name: a, value: b}, {name: a, value: c}]}]", "matches[0].headers[1]", "duplicate hea"),
        ("matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]", "matches[0].queryParams[1]", "dupli"),
        ("timeouts: {request: 10}", "timeouts.request", "expected a string; got the number 10"),
        ("timeouts: {request: 1.5s}", "timeouts.request", "expected a duration, such as `10s`"),
        ("timeouts: {request: 1s, backendRequest: 2s}", "timeouts.backendRequest", "must not be longer than request"),
        ("retry: {codes: [200]}", "retry.codes[0]", "expected at least 400; got the number 200"),
        ("filters: [{type: URLRewrite}]", "filters[0].urlRewrite", "type URLRewrite needs urlRewrite"),
        (
            "filters: [{type: CORS, cors: {}, urlRewrite: {}}]",
            "filters[0].urlRewrite",
            "urlRewrite must not be set for type CORS",
        ),
        (
            "filters: [{type: CORS, cors: {}}, {type: CORS, cors: {}}]",
            "filters[1]",
            "filter CORS must not be repeated",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['*', 'https://a.example']}}]",
            "filters[0].cors.allowOrigins",
            "'*' must be the only entry",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['ftp://a.example']}}]",
            "filters[0].cors.allowOrigins[0]",
            "expected an origin",
        ),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 304}}]",
            "filters[0].requestRedirect.statusCode",
            "expected one of 301, 302, 303, 307, 308; got the number 304",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}], " + BACKEND + "}",
            "backendRefs",
            "must not have backendRefs",
        ),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]",
            "filters",
            "RequestRedirect and URLRewrite must not be combined",
        ),
        (
            "{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, "
            "urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}",
            "filters[0]",
            "replacePrefixMatch needs a rule with exactly one match, of type PathPrefix",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /b}}}]",
            "filters[0].urlRewrite.path.replaceFullPath",
            "type ReplaceFullPath needs replaceFullPath",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 5, "
            "fraction: {numerator: 1}}}]",
            "filters[0].requestMirror.fraction",
            "set percent or fraction, not both",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, "
            "fraction: {numerator: 5, denominator: 4}}}]",
            "filters[0].requestMirror.fraction.numerator",
            "must not be greater than the denominator (4)",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, "
            "{name: a, value: c}]}}]",
            "filters[0].requestHeaderModifier.set[1]",
            "duplicate header 'a'",
        ),
        (
            "sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}",
            "sessionPersistence.absoluteTimeout",
            "a Permanent cookie needs absoluteTimeout",
        ),
    ],
)
def test_a_rule_that_gateway_api_would_refuse_is_a_fault_that_names_the_field(
    rule: str, path: str, message: str
) -> None:
    found_path, found_message = fault(route(rule))
    assert found_path == f"spec.rules[0].{path}"
    assert message in found_message


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ("hostnames: [UPPER.example.com]", "spec.hostnames[0]", "a host name in lower case, such as"),
        ("hostnames: ['*']", "spec.hostnames[0]", "a host name in lower case"),
        ("hostname: [a]", "spec.hostname", "unknown field; did you mean `hostnames`?"),
        ("parentRefs: [{name: a}, {name: a}]", "spec.parentRefs[1]", "duplicate reference to Gateway 'a'"),
        ("parentRefs: [{name: a}, {name: a, sectionName: b}]", "spec.parentRefs[1]", "must all set sectionName"),
        ("rules: [{name: a}, {name: a}]", "spec.rules[1].name", "duplicate rule name 'a'"),
        ("rules: " + str([{}] * 17), "spec.rules", "expected at most 16 entries; got 17"),
        ("rules: " + str([{"matches": [{}] * 64}] * 3), "spec.rules", "at most 128 matches"),
    ],
)
def test_a_route_that_gateway_api_would_refuse_is_a_fault_that_names_the_field(
    spec: str, path: str, message: str
) -> None:
    found_path, found_message = fault(route(**read(spec)))
    assert found_path == path
    assert message in found_message


@pytest.mark.parametrize(
    ("listeners", "path", "message"),
    [
        ("[]", "", "expected at least 1 entry; got 0"),
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]",
            "[1]",
            "duplicate listener name",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]",
            "[1]",
            "same port, protocol and hostname as listener 'a'",
        ),
        ("[{name: a, port: 80, protocol: HTTP, tls: {certificateRefs: [{name: c}]}}]", "[0].tls", "must not be set"),
        ("[{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}]", "[0].tls.mode", "must be Terminate"),
        ("[{name: a, port: 443, protocol: HTTPS, tls: {}}]", "[0].tls.certificateRefs", "needs certificateRefs"),
        ("[{name: a, port: 443, protocol: TLS}]", "[0].tls", "protocol TLS needs tls.mode"),
        (
            "[{name: a, port: 1, protocol: TCP, hostname: a.example}]",
            "[0].hostname",
            "must not be set for protocol TCP",
        ),
        ("[{name: a, port: 0, protocol: HTTP}]", "[0].port", "expected at least 1; got the number 0"),
        (
            "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Everywhere}}}]",
            "[0].allowedRoutes.namespaces.from",
            "expected one of All, Selector, Same; got 'Everywhere'",
        ),
        (
            "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: "
            "{matchExpressions: [{key: a, operator: In}]}}}}]",
            "[0].allowedRoutes.namespaces.selector.matchExpressions[0].values",
            "operator In needs at least one value",
        ),
    ],
)
def test_listeners_that_gateway_api_would_refuse_are_a_fault_that_names_the_field(
    listeners: str, path: str, message: str
) -> None:
    found_path, found_message = fault(gateway(listeners))
    assert found_path == f"spec.listeners{path}"
    assert message in found_message


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({}, "apiVersion", "required field is missing"),
        ({"apiVersion": "v1"}, "kind", "required field is missing"),
        ({"apiVersion": 1, "kind": "Secret"}, "apiVersion", "expected a string; got the number 1"),
        (
            {"apiVersion": "v1", "kind": "Pod"},
            "kind",
            "unknown kind 'Pod' of apiVersion 'v1'; expected one of ConfigMap",
        ),
        (
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HttpRoute"},
            "kind",
            "unknown kind 'HttpRoute' of group 'gateway.networking.k8s.io'; did you mean `HTTPRoute`?",
        ),
        (
            {"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "HTTPRoute"},
            "apiVersion",
            "version 'v1alpha2' of HTTPRoute is not served; use 'gateway.networking.k8s.io/v1'",
        ),
        ({"apiVersion": "gateway.networking/v1", "kind": "HTTPRoute"}, "apiVersion", "did you mean `gateway.networki"),
        ({"apiVersion": "apps/v1", "kind": "Deployment"}, "apiVersion", "unknown API group 'apps'"),
        ({"apiVersion": "v1", "kind": "ConfigMap"}, "metadata", "required field is missing"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}, "metadata.name", "required field is missing"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "lables": {}}},
            "metadata.lables",
            "unknown field; did you mean `labels`?",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_b"}},
            "metadata.name",
            "expected a DNS name (lower-case letters, digits, '-' and '.'); got 'A_b'",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x.y": 1}},
            "data['x.y']",
            "expected a string; got the number 1",
        ),
        (
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"type": "ExternalName"}},
            "spec.externalName",
            "type ExternalName needs externalName",
        ),
    ],
)
def test_what_kind_of_object_it_is_must_be_known(document: dict[str, Any], path: str, message: str) -> None:
    found_path, found_message = fault(document)
    assert found_path == path
    assert message in found_message


def test_alternatives_of_one_field_are_one_fault() -> None:
    service = read("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, targetPort: [1]}]}}")
    assert fault(service) == ("spec.ports[0].targetPort", "expected a whole number or a string; got a list")


def test_all_faults_are_reported_at_once() -> None:
    loaded = load(route("{matches: [{method: X}], backendRefs: [{}, {name: a, port: 0}]}", hostnames=["A"], extra=1))
    assert [each.path for each in loaded.faults] == [
        "spec.hostnames[0]",
        "spec.rules[0].matches[0].method",
        "spec.rules[0].backendRefs[0].name",
        "spec.rules[0].backendRefs[1].port",
        "spec.extra",
    ]
    assert loaded.key == ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "demo", "open")


def test_nulls_mean_the_default_as_in_kubernetes() -> None:
    document = route(
        "{matches: null, filters: null, backendRefs: [{name: web, port: 80, weight: null}]}", hostnames=None
    )
    document["metadata"] |= {"namespace": "", "labels": None, "creationTimestamp": None}
    loaded = accept(document)
    assert loaded.metadata.namespace == "default"
    assert loaded.spec.hostnames == ()
    assert loaded.spec.rules[0].backend_refs[0].weight == 1
    assert loaded.spec.rules[0].matches[0].path.value == "/"


def test_a_required_null_is_missing() -> None:
    assert fault(route("backendRefs: [{name: null, port: 80}]")) == (
        "spec.rules[0].backendRefs[0].name",
        "required field is missing",
    )


def test_status_and_what_a_cluster_adds_are_dropped() -> None:
    document = route(BACKEND)
    document["status"] = {"parents": [{"anything": True}]}
    document["metadata"] |= {
        "uid": "1-2-3",
        "resourceVersion": "7",
        "generation": 3,
        "managedFields": [{}],
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
    }
    loaded = accept(document)
    assert loaded.metadata.generation == 3
    assert loaded.metadata.creation_timestamp.isoformat() == "2026-01-31T12:00:00+00:00"
    assert loaded.metadata.annotations == {"kept": "yes"}
    assert loaded.status is None
    assert "1-2-3" not in repr(loaded)


def test_the_key_of_an_object_can_be_told_without_reading_it_whole() -> None:
    assert key_of(read("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}")) == ObjectKey(
        "", "Namespace", "", "a"
    )
    assert key_of(read("{apiVersion: x.io/v1, kind: Foo, metadata: {name: a}}")) == ObjectKey(
        "x.io", "Foo", "default", "a"
    )
    for text in ("{}", "{kind: A}", "{apiVersion: v1, kind: A}", "{apiVersion: v1, kind: A, metadata: {name: 5}}"):
        assert key_of(read(text)) is None


def test_faults_without_end_are_cut_short() -> None:
    loaded = load(route(hostnames=["A"] * 200))
    assert len(loaded.faults) == 51
    assert loaded.faults[-1].message == "and 150 more faults"
