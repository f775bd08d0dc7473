"""What single annotations and paths of an Ingress mean, and what is said of those that mean nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.api.ingress import HTTPIngressPath
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.compile.check import check
from controlplane.compile.ingress import Carrier, Context, expand
from controlplane.compile.ingress_annotations import PREFIX, Settings, settings
from controlplane.compile.ingress_documents import Place, name_for, short
from controlplane.compile.ingress_paths import matched
from tests.support import manifests as m
from tests.support.ingress import ingress, path, rule

GATEWAY = ObjectKey("gateway.networking.k8s.io", "Gateway", "edge", "ingress")


def asked(**annotations: str) -> Settings:
    return settings({f"{PREFIX}{name.replace('_', '-')}": value for name, value in annotations.items()})


def on(value: str, target: str | None = None, *, regex: bool = False, type_: str = "ImplementationSpecific") -> Any:
    each = HTTPIngressPath.model_validate(path(value, type_=type_))
    return matched(each, Settings(regex=regex, rewrite=target))


def expanded(document: m.Manifest, **context: Any) -> Any:
    loaded: Any = load(document).object
    assert loaded is not None
    carrier = context.pop("carrier", Carrier(GATEWAY, ("http",)))
    return expand(
        loaded, Context(carrier, context.pop("port", lambda service, port: None), context.pop("owners", {}), **context)
    )


@pytest.mark.parametrize(
    ("value", "target", "match", "rewrite"),
    [
        ("/api(/|$)(.*)", "/$2", ("PathPrefix", "/api"), ("replacePrefixMatch", "/")),
        ("/api(/|$)(.*)", "/new/$2", ("PathPrefix", "/api"), ("replacePrefixMatch", "/new/")),
        ("/api/(.*)", "/$1", ("PathPrefix", "/api"), ("replacePrefixMatch", "/")),
        ("/api/?(.*)", "/$1", ("PathPrefix", "/api"), ("replacePrefixMatch", "/")),
        ("/(.*)", "/v1/$1", ("PathPrefix", "/"), ("replacePrefixMatch", "/v1/")),
        ("/api", "/", ("PathPrefix", "/api"), ("replaceFullPath", "/")),
        ("/api", "/$1", ("PathPrefix", "/api"), ("replaceFullPath", "/")),
        ("/a[0-9]+", "/a", ("RegularExpression", "(?i:/a[0-9]+).*"), ("replaceFullPath", "/a")),
    ],
)
def test_rewrites_that_cut_off_a_prefix_need_no_regular_expression(
    value: str, target: str, match: tuple[str, str], rewrite: tuple[str, str]
) -> None:
    found = on(value, target)
    assert (found.path["type"], found.path["value"]) == match
    assert found.rewrite["path"][rewrite[0]] == rewrite[1]
    assert found.expression is None


@pytest.mark.parametrize(
    ("value", "target", "substitution"),
    [
        ("/api(/|$)(.*)", "/$1", r"/\1"),
        ("/a/([^/]+)/(.*)", "/$2/$1", r"/\2/\1"),
        ("/a/(.*)", "/b/$1/$3", r"/b/\1/"),
        (r"/a\((.*)", "/$1$2", r"/\1"),
        ("/a/(?:x|y)/(.*)/z", "/$1", r"/\1"),
    ],
)
def test_other_rewrites_are_substitutions_of_groups_that_there_are(value: str, target: str, substitution: str) -> None:
    found = on(value, target)
    assert found.expression == (f"^(?i:{value}).*", substitution)
    document = m.manifest(
        "dragoman.dev/v1alpha1",
        "HTTPRouteFilter",
        "x",
        {
            "urlRewrite": {
                "path": {
                    "type": "ReplaceRegexMatch",
                    "replaceRegexMatch": dict(zip(("pattern", "substitution"), found.expression, strict=True)),
                }
            }
        },
    )
    assert check(load(document).object, now=datetime(2026, 1, 1, tzinfo=UTC)) == ()


def test_a_substitution_of_a_group_that_is_not_there_is_a_fault() -> None:
    change = {"type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": "/(a)", "substitution": r"/\2"}}
    document = m.manifest("dragoman.dev/v1alpha1", "HTTPRouteFilter", "x", {"urlRewrite": {"path": change}})
    (fault,) = check(load(document).object, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert fault.path == "spec.urlRewrite.path.replaceRegexMatch.substitution"


def test_without_use_regex_characters_of_regular_expressions_are_themselves() -> None:
    assert on("/a.b+c").path == {"type": "PathPrefix", "value": "/a.b+c"}
    assert on("/a.b+c", regex=True).path["type"] == "RegularExpression"
    assert on("/exact", regex=True, type_="Exact").path == {"type": "Exact", "value": "/exact"}
    assert on("").path == {"type": "PathPrefix", "value": "/"}


@pytest.mark.parametrize("value", ["yes", "2", "TrUe", ""])
def test_a_flag_that_cannot_be_read_counts_as_not_set(value: str) -> None:
    found = asked(ssl_redirect=value)
    assert found.ssl_redirect
    assert bool(found.warnings) == bool(value)


def test_addresses_may_be_written_without_a_length() -> None:
    assert asked(whitelist_source_range="192.0.2.1, 10.1.2.3/8,2001:db8::1").allow == (
        "192.0.2.1/32",
        "10.0.0.0/8",
        "2001:db8::1/128",
    )


@pytest.mark.parametrize(
    "annotations",
    [
        {"auth_url": "http://auth"},
        {"auth_type": "basic"},
        {"auth_tls_secret": "demo/ca"},
        {"whitelist_source_range": "10.0.0.0/8, all"},
        {"denylist_source_range": "10.0.0.0/33"},
        {"permanent_redirect": "ftp://example.com"},
        {"temporal_redirect": "https://$host/x"},
    ],
)
def test_what_should_keep_somebody_out_and_cannot_keeps_everybody_out(annotations: dict[str, str]) -> None:
    found = asked(**annotations)
    assert found.blocked
    assert found.warnings[0].field.startswith(f"metadata.annotations['{PREFIX}")


@pytest.mark.parametrize("annotations", [{"auth_type": ""}, {"proxy_body_size": "0"}, {"proxy_buffering": "off"}])
def test_what_asks_for_what_is_so_anyway_is_no_news(annotations: dict[str, str]) -> None:
    found = asked(**annotations)
    assert not found.blocked
    assert found.warnings == () or "auth_type" in annotations


def test_every_origin_may_not_have_credentials() -> None:
    assert asked(enable_cors="true").cors is not None
    told = asked(enable_cors="true", cors_allow_credentials="true")
    assert told.cors is not None
    assert told.cors["allowCredentials"] is False
    assert "no effect" in told.warnings[0].message


def test_of_two_redirects_the_temporary_one_wins() -> None:
    found = asked(permanent_redirect="https://a.example.com", temporal_redirect="https://b.example.com/x")
    assert found.redirect is not None
    assert (found.redirect["hostname"], found.redirect["statusCode"]) == ("b.example.com", 302)


def test_many_paths_are_split_over_routes_that_are_all_valid() -> None:
    document = ingress("big", rule("a.example.com", *(path(f"/p{index}") for index in range(200))))
    document["metadata"]["annotations"][f"{PREFIX}force-ssl-redirect"] = "true"
    found = expanded(document, owners={"a.example.com": ("big", "cert")})
    routes = [each for each in found.made if each.key.kind == "HTTPRoute"]
    assert sum(len(each.document["spec"]["rules"]) for each in routes if not each.redirects) == 200
    matches = [
        match for each in routes if each.redirects for r in each.document["spec"]["rules"] for match in r["matches"]
    ]
    assert len(matches) == 200
    assert all(load(each.document).faults == () for each in found.made)


def test_a_field_of_what_is_expanded_leads_back_to_that_of_the_ingress() -> None:
    document = ingress("one", rule("a.example.com", path("/a"), path("/b")))
    (route,) = expanded(document).made
    key = ObjectKey("networking.k8s.io", "Ingress", "demo", "one")
    for field, expected in (
        ("spec.rules[1].backendRefs[0].name", "spec.rules[0].http.paths[1].backend.service"),
        ("spec.rules[1].backendRefs[0].port", "spec.rules[0].http.paths[1].backend.service.port"),
        ("spec.rules[0].matches[0].path.value", "spec.rules[0].http.paths[0].path"),
        ("spec.rules[0]", "spec.rules[0].http.paths[0]"),
        ("spec.hostnames", "spec.rules[0].host"),
        ("spec.parentRefs[0].name", "spec.ingressClassName"),
        ("", "spec"),
    ):
        assert route.place_of(field) == Place(key, expected)


def test_names_are_valid_and_apart_however_long_the_ingress_is_called() -> None:
    long = "a" * 253
    assert len(name_for(long, f"{short('a')}-redirect-99-99")) <= 253
    assert name_for(long, "x-0") != name_for(long[:-1] + "b", "x-0")
    assert name_for("a.b", "c") != name_for("a", "b-c")


def test_the_gateway_s_own_https_listener_serves_hosts_without_a_secret() -> None:
    document = ingress("one", rule("a.example.com", path("/")), tls=[{"hosts": ["a.example.com"]}])
    found = expanded(document, carrier=Carrier(GATEWAY, ("http",), ("https",)))
    assert found.warnings == ()
    forward, redirect = found.made
    assert [each["sectionName"] for each in forward.document["spec"]["parentRefs"]] == ["https"]
    assert [each["sectionName"] for each in redirect.document["spec"]["parentRefs"]] == ["http"]
    (missing,) = expanded(document).warnings
    assert missing.field == "spec.tls[0].secretName"
