"""What is said of limits with mode Quota: whether Envoys enforce them, and which of them counts a request."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.explain import Explanation, Request, explain
from controlplane.explain.lines import lines
from controlplane.pipeline import Pipeline
from controlplane.translate.services import QUOTA_CLUSTER
from tests.support import manifests as m
from tests.unit.pipeline.driver import put, stabilise

OURS = "dragoman.dev/v1alpha1"
KEYS = {"credentialRefs": [{"name": "keys"}], "extractFrom": [{"headers": ["x-key"]}], "forwardClientIDHeader": "x-who"}


def policy(*rules: m.Manifest, name: str = "limits", kind: str = "HTTPRoute", **more: Any) -> m.Manifest:
    target = {"group": "gateway.networking.k8s.io", "kind": kind, "name": "r" if kind == "HTTPRoute" else "edge"}
    spec = {"targetRefs": [target], "rateLimit": {"type": "Global", "global": {"rules": list(rules)}}, **more}
    return m.manifest(OURS, "BackendTrafficPolicy", name, spec)


def quota(*selectors: m.Manifest, requests: int = 5, **more: Any) -> m.Manifest:
    found = {"limit": {"requests": requests, "unit": "Minute"}, "mode": "Quota", **more}
    return {**found, "clientSelectors": list(selectors)} if selectors else found


def explained(
    *documents: m.Manifest,
    path: str = "/a",
    headers: tuple[str, ...] = (),
    quota_mode: bool = True,
    service: bool = True,
) -> Explanation:
    pipeline = Pipeline(quota_mode=quota_mode, rate_limit_service=service)
    world = (m.gateway_class(), m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1"))
    for document in (*world, m.route("r", [m.rule("/", "one")]), *documents):
        put(pipeline, document)
    if quota_mode:
        pipeline.guards.endpoints.set(QUOTA_CLUSTER, ("10.0.0.9:9001", "10.0.0.8:9001"))
    stabilise(pipeline)
    return explain(pipeline, Request.of(f"http://example.com{path}", headers=headers))


def told(found: Explanation) -> list[str]:
    """What is printed of the limits with mode Quota."""
    texts = [line.text for line in lines(found)]
    return texts[texts.index("Limits with mode Quota") + 1 : texts.index("Backends")]


def counts(*rules: m.Manifest, path: str = "/a", headers: tuple[str, ...] = ()) -> list[bool | None]:
    return [each.counts for each in explained(policy(*rules), path=path, headers=headers).quotas]


def test_the_rule_its_bucket_and_where_it_is_enforced_are_told() -> None:
    gold = {"headers": [{"name": "x-plan", "value": "gold"}]}
    found = explained(policy(quota(gold), quota(requests=1, shared=True)), headers=("x-plan: gold",))
    first, second = found.quotas
    assert first.source.field == "spec.rateLimit.global.rules[0]"
    assert (first.by_share, first.counts, first.rule) == (True, True, "5 requests a minute with x-plan: gold")
    assert first.bucket["dragoman.domain"].startswith("demo/limits/")
    assert {key: first.bucket[key] for key in ("headers", "route")} == {
        "headers": "matched",
        "route": "HTTPRoute/demo/r",
    }
    assert (second.counts, second.why) == (False, "spec.rateLimit.global.rules[0] is about it, and comes first")
    assert "route" not in second.bucket
    where = "each Envoy enforces the share that the rate limit service at 10.0.0.8:9001 assigns to it"
    assert first.where == f"{where}; until it has one, all pass"
    shown = told(found)
    assert shown[0] == "5 requests a minute with x-plan: gold: counts this request"
    assert shown[2].startswith("bucket dragoman.domain=demo/limits/")


def test_the_filters_say_who_does_what() -> None:
    asked = {"limit": {"requests": 9, "unit": "Hour"}}
    found = explained(policy(quota(), asked))
    does = {each.name: each.does for each in found.filters}
    assert does["dragoman/quota"] == "5 requests a minute; each Envoy enforces its share of that (mode Quota)"
    assert "to the filter that follows" in does["dragoman/quota-key"]
    service = "9 requests an hour; counted over all Envoys; let through while the service cannot be reached"
    assert does["dragoman/ratelimit"] == service
    assert [each.value for each in found.policies] == [f"{does['dragoman/quota']}; and {service}"]


@pytest.mark.parametrize(
    ("selector", "path", "headers", "holds"),
    [
        ({"headers": [{"name": "X-Plan", "value": "gold"}]}, "/a", ("x-plan: gold",), True),
        ({"headers": [{"name": "x-plan", "value": "gold"}]}, "/a", ("x-plan: gold", "x-plan: gold"), False),
        ({"headers": [{"name": "x-plan", "value": "gold"}]}, "/a", (), False),
        ({"headers": [{"name": "x-plan", "value": "gold", "invert": True}]}, "/a", (), True),
        ({"headers": [{"name": "x-plan", "value": "g.*", "type": "RegularExpression"}]}, "/a", ("x-plan: gold",), True),
        ({"headers": [{"name": "x-plan", "value": "g", "type": "RegularExpression"}]}, "/a", ("x-plan: gold",), False),
        ({"path": {"value": "/a"}}, "/a/b?c=d", (), True),
        ({"path": {"value": "/a"}}, "/ab", (), False),
        ({"path": {"value": "/a", "type": "Exact", "invert": True}}, "/a?x=1", (), False),
        ({"path": {"value": "/a\\?x=[0-9]", "type": "RegularExpression"}}, "/a?x=1", (), True),
        ({"methods": [{"value": "GET"}, {"value": "POST"}]}, "/a", (), True),
        ({"methods": [{"value": "GET", "invert": True}]}, "/a", (), False),
        ({"queryParams": [{"name": "q", "value": "x y"}]}, "/a?q=x%20y&q=z", (), True),
        ({"queryParams": [{"name": "q", "value": "z"}]}, "/a?q=x%20y&q=z", (), False),
        ({"sourceCIDR": {"value": "10.0.0.0/8"}}, "/a", (), None),
        ({"sourceCIDR": {"value": "10.0.0.0/8"}, "path": {"value": "/b"}}, "/a", (), False),
    ],
)
def test_a_rule_counts_a_request_that_all_its_selectors_choose(
    selector: m.Manifest, path: str, headers: tuple[str, ...], holds: bool | None
) -> None:
    assert counts(quota(selector), path=path, headers=headers) == [holds]


def test_the_first_rule_that_is_about_a_request_counts_it_as_far_as_that_can_be_told() -> None:
    near = quota({"sourceCIDR": {"value": "10.0.0.0/8"}})
    all_ = quota({"path": {"value": "/"}})
    assert counts(near, all_, near, all_) == [None, None, False, False]
    found = explained(policy(near, all_))
    assert [each.why for each in found.quotas] == [
        "the client's address must be of 10.0.0.0/8",
        "if it is not counted by spec.rateLimit.global.rules[0], which comes first",
    ]
    assert "5 requests a minute from 10.0.0.0/8: may count it: the client's address must be of 10.0.0.0/8" in told(
        found
    )


def test_a_header_that_tells_who_calls_is_not_known_beforehand() -> None:
    target = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}]}
    security = m.manifest(OURS, "SecurityPolicy", "keys", {**target, "apiKeyAuth": KEYS})
    secret = m.manifest("v1", "Secret", "keys", None, stringData={"ann": "key-of-ann"})
    rule = quota({"headers": [{"name": "x-who", "value": "ann"}]})
    (found,) = explained(secret, security, policy(rule), headers=("x-key: key-of-ann",)).quotas
    assert (found.counts, found.why) == (None, "the header x-who is set by what the caller proves to be")


@pytest.mark.parametrize(
    ("rule", "quota_mode", "why"),
    [
        (quota(), False, "no quota service is known (--ratelimit-quota)"),
        (
            quota(shared=True, cost={"request": {"from": "Number", "number": 2}}),
            True,
            "Envoy counts each request as one",
        ),
        (quota({"headers": [{"name": "x-user", "type": "Distinct"}]}), True, "headers of type Distinct need a bucket"),
    ],
)
def test_of_a_rule_that_is_asked_about_it_is_told_why(rule: m.Manifest, quota_mode: bool, why: str) -> None:
    found = explained(policy(rule), quota_mode=quota_mode)
    (quota_,) = found.quotas
    assert (quota_.by_share, quota_.counts, quota_.bucket) == (False, None, {})
    assert quota_.where == "the rate limit service is asked about each request"
    assert why in quota_.why
    assert [each for each in told(found) if why in each]
    assert "dragoman/quota" not in [each.name for each in found.filters]


def test_without_anybody_who_could_be_asked_that_is_told_too() -> None:
    (found,) = explained(policy(quota()), quota_mode=False, service=False).quotas
    assert found.where == "there is no rate limit service that could be asked"
    assert found.why.endswith("the service is asked about each request, and there is none (--ratelimit)")


def test_rules_that_were_merged_are_asked_about_each_with_its_own_policy() -> None:
    gateways = policy(quota(requests=100), name="edge", kind="Gateway")
    found = explained(gateways, policy(quota(), mergeType="StrategicMerge"))
    assert {each.source.object for each in found.quotas} == {
        "BackendTrafficPolicy demo/edge",
        "BackendTrafficPolicy demo/limits",
    }
    assert all("it is merged with others" in each.why for each in found.quotas)


def test_what_a_share_that_is_not_there_means_depends_on_the_rule() -> None:
    def where(**more: Any) -> str:
        (found,) = explained(policy(quota(**more))).quotas
        return found.where

    assert where(onStoreError="Deny").endswith("none passes")
    assert where(onStoreError="Local").endswith("all pass")
    assert where(shadowMode=True).startswith("each Envoy lets all pass")


def test_where_nothing_passes_or_no_rule_has_the_mode_nothing_is_told() -> None:
    target = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}]}
    broken = m.manifest(OURS, "SecurityPolicy", "users", {**target, "basicAuth": {"users": {"name": "users"}}})
    found = explained(policy(quota()), broken)
    assert (found.outcome.kind, found.quotas) == ("deny", ())
    assert explained(policy({"limit": {"requests": 1, "unit": "Hour"}})).quotas == ()
