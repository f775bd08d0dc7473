"""Which limits callers have by who they are: what Plans become, and which of them a policy may refer to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane import ir
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.compile import policies
from controlplane.compile.check import check
from controlplane.compile.policies import Level
from controlplane.compile.ratelimit import Limits, compile_limits
from controlplane.compile.security import Security
from controlplane.translate.plans import rate_limits
from tests.support import manifests as m
from tests.unit.compile.view import PlainView
from tests.unit.pipeline.driver import NOW

OURS = "dragoman.dev/v1alpha1"
POLICY = ObjectKey("dragoman.dev", "BackendTrafficPolicy", "demo", "p")


def plan(name: str, *limits: dict[str, Any], namespace: str = "demo", **spec: Any) -> dict[str, Any]:
    made = m.manifest(OURS, "Plan", name, {"limits": list(limits), **spec})
    made["metadata"]["namespace"] = namespace
    return made


def policy(plans: dict[str, Any], **more: Any) -> dict[str, Any]:
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
    spec = {"targetRefs": [target], "rateLimit": {"global": {"plans": plans, **more}}}
    return m.manifest(OURS, "BackendTrafficPolicy", "p", spec)


def compiled(given: dict[str, Any], *documents: dict[str, Any]) -> Limits:
    view = PlainView(given, *documents)
    return compile_limits(view.get(POLICY), view)


def plans_of(limits: Limits) -> ir.Plans:
    assert limits.global_limit is not None
    assert limits.global_limit.plans is not None
    return limits.global_limit.plans


def reasons(limits: Limits) -> list[tuple[str, str]]:
    return [(each.reason, each.field) for each in limits.conditions]


DAY = {"requests": 5, "unit": "Day"}


def test_limits_are_told_apart_by_who_has_a_counter_of_its_own() -> None:
    many = plan(
        "free",
        {**DAY, "algorithm": "TokenBucket", "burst": 9},
        {**DAY, "per": "Tenant", "shadowMode": True},
        {**DAY, "per": "Plan"},
        overrides=[{"consumers": ["a", "b"], "limits": [{"requests": 7, "unit": "Week"}]}, {"tenants": ["t"]}],
    )
    (found,) = plans_of(compiled(policy({"default": "free"}), many)).plans
    assert found.per_consumer == (ir.CallerLimit(5, "Day", ir.Counting("TokenBucket", 9)),)
    assert found.per_tenant == (ir.CallerLimit(5, "Day", shadow=True),)
    assert found.together == (ir.CallerLimit(5, "Day"),)
    week = (ir.CallerLimit(7, "Week"),)
    assert found.consumers == (ir.Override("a", week), ir.Override("b", week))
    assert found.tenants == (ir.Override("t", ()),)


def test_without_references_the_plans_of_the_policys_namespace_count() -> None:
    others = (plan("free", DAY), plan("paid", DAY), plan("gold", DAY, namespace="other"))
    found = compiled(policy({"default": "free"}), *others)
    assert [each.name for each in plans_of(found).plans] == ["free", "paid"]
    assert reasons(found) == []


def test_a_plan_of_another_namespace_needs_a_grant() -> None:
    refs = {"refs": [{"name": "gold", "namespace": "other"}], "default": "gold"}
    gold = plan("gold", DAY, namespace="other")
    refused = compiled(policy(refs), gold)
    field = "spec.rateLimit.global.plans"
    assert reasons(refused) == [("RefNotPermitted", f"{field}.refs[0]"), ("PlanNotFound", f"{field}.default")]
    assert plans_of(refused).plans == ()
    grant = m.manifest(
        "gateway.networking.k8s.io/v1",
        "ReferenceGrant",
        "g",
        {
            "from": [{"group": "dragoman.dev", "kind": "BackendTrafficPolicy", "namespace": "demo"}],
            "to": [{"group": "dragoman.dev", "kind": "Plan"}],
        },
    )
    grant["metadata"]["namespace"] = "other"
    assert reasons(compiled(policy(refs), gold, grant)) == []


def test_what_plans_say_renames_no_domain_and_how_callers_are_known_does() -> None:
    def domain(given: dict[str, Any], *documents: dict[str, Any]) -> str:
        limit = compiled(given, *documents).global_limit
        assert limit is not None
        return limit.domain

    before = domain(policy({"default": "free"}), plan("free", DAY))
    assert domain(policy({"default": "free"}), plan("free", {**DAY, "requests": 6}), plan("paid")) == before
    assert domain(policy({"default": "free", "identity": {"plan": "tier"}}), plan("free", DAY)) != before


def test_plans_go_on_counting_while_callers_are_known_alike() -> None:
    def home(rules: list[dict[str, Any]], **plans: Any) -> str:
        return plans_of(compiled(policy({"default": "free", **plans}, rules=rules), plan("free", DAY))).home

    assert home([]) == home([{"limit": DAY}]) == home([], anonymous="free")
    assert home([]) != home([], identity={"plan": "tier"})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"limits": [{**DAY, "algorithm": "Concurrency", "requests": 200_000}]}, ["spec.limits[0].requests"]),
        ({"limits": [{**DAY, "algorithm": "TokenBucket", "burst": 1, "requests": 0}]}, ["spec.limits[0].burst"]),
        (
            {"overrides": [{"tenants": ["a", "b"]}, {"tenants": ["c", "b"]}, {"consumers": ["b"]}]},
            ["spec.overrides[1].tenants[1]"],
        ),
        ({"limits": [DAY]}, []),
    ],
)
def test_faults_of_plans(spec: dict[str, Any], expected: list[str]) -> None:
    loaded = load(m.manifest(OURS, "Plan", "p", spec))
    assert loaded.object is not None, loaded.faults
    assert [fault.path for fault in check(loaded.object, now=NOW)] == expected


# -- the merge --


def level(*found: Security | Limits, of_route: bool = False) -> Level:
    return Level(found, of_route=of_route)


def with_plans(name: str, source: Any, merge_type: Any = None, rules: tuple[ir.LimitRule, ...] = ()) -> Limits:
    who = ir.PlanIdentity(source, consumer="sub")
    plans = ir.Plans(who, (ir.Plan(name, f"demo/{name}"),), name, name, home=f"demo/{name}")
    key = ObjectKey("dragoman.dev", "BackendTrafficPolicy", "demo", name)
    return Limits(key, global_limit=ir.GlobalLimit(f"demo/{name}", rules, plans=plans), merge_type=merge_type)


JWT = ir.Jwt((ir.JwtProvider("main", "https://i", (), ir.Jwks("{}")),))
TOKENS = Security(ObjectKey("dragoman.dev", "SecurityPolicy", "demo", "s"), jwt=JWT)


def test_a_gateway_does_not_know_callers_by_a_routes_tokens() -> None:
    gateways = with_plans("gateway", "Token")
    trusted = policies.merge([level(gateways, TOKENS), level(of_route=True)], scope="r")
    assert trusted.policies.global_limit is not None
    assert trusted.policies.global_limit.plans == plans_of(gateways)
    assert trusted.policies.jwt is not None
    assert trusted.policies.jwt.providers[0].claims_read
    refused = policies.merge([level(gateways), level(TOKENS, of_route=True)], scope="r")
    assert refused.policies.global_limit is not None
    assert refused.policies.global_limit.plans is not None
    assert refused.policies.global_limit.plans.identity.provider == ""
    assert refused.policies.jwt is not None
    assert not refused.policies.jwt.providers[0].claims_read
    assert [(key, note.field) for key, note in refused.notes] == [
        (gateways.key, "spec.rateLimit.global.plans.identity"),
    ]


def test_merged_plans_go_on_counting_with_their_own_policy() -> None:
    above = with_plans("gateway", "Key")
    rule = ir.LimitRule(5, "Day")
    own = Limits(POLICY, global_limit=ir.GlobalLimit("demo/p", (rule,)), merge_type="StrategicMerge")
    merged = policies.merge([level(above), level(own, of_route=True)], scope="r").policies.global_limit
    assert merged is not None
    assert merged.plans is not None
    assert merged.plans == plans_of(above)
    replaced = policies.merge(
        [level(above), level(Limits(POLICY, global_limit=own.global_limit), of_route=True)], scope="r"
    )
    assert replaced.policies.global_limit == own.global_limit
    theirs = with_plans("route", "Key", "StrategicMerge")
    both = policies.merge([level(above), level(theirs, of_route=True)], scope="r").policies.global_limit
    assert both is not None
    assert both.plans == plans_of(theirs)


def test_no_more_plans_than_refs_may_name_are_in_force_and_those_that_are_named_are_among_them() -> None:
    many = [plan(f"p{number:03}", DAY) for number in range(80)]
    limits = compiled(policy({"default": "p079", "anonymous": "p078"}), *many)
    names = [each.name for each in plans_of(limits).plans]
    assert names == [f"p{number:03}" for number in (*range(62), 78, 79)]
    assert reasons(limits) == [("TooManyPlans", "spec.rateLimit.global.plans")]


STORE = Security(ObjectKey("dragoman.dev", "SecurityPolicy", "demo", "k"), keys=ir.KeyPolicy("demo/k", ()))


def test_a_routes_policy_is_told_where_no_keys_are_asked_for() -> None:
    own = with_plans("route", "Key")
    told = policies.merge([level(), level(own, of_route=True)], scope="r").notes
    assert [(key, note.type, note.field) for key, note in told] == [
        (own.key, "NotSupported", "spec.rateLimit.global.plans.identity")
    ]
    assert not policies.merge([level(STORE), level(own, of_route=True)], scope="r").notes
    # Its routes may ask for them.
    assert not policies.merge([level(own), level(of_route=True)], scope="r").notes


def test_inline_keys_of_a_route_do_not_say_who_calls() -> None:
    limit = with_plans("gateway", "Key").global_limit
    assert limit is not None
    assert limit.plans is not None
    plans = replace(limit.plans, plans=(ir.Plan("gateway", "demo/gateway", (ir.CallerLimit(1, "Day"),)),))

    def slots(keys: ir.KeyPolicy) -> list[str]:
        made = rate_limits(plans, ir.Policies(keys=keys))
        return [each.actions[0].generic_key.descriptor_value for each in made]

    assert slots(ir.KeyPolicy("demo/k", ())) == ["consumer.0"]
    assert slots(ir.KeyPolicy("demo/k", (), known=(("hooli", "00"),))) == ["anonymous.0"]


def test_limits_of_single_callers_are_bounded_and_very_many_are_not_shielded() -> None:
    def overrides(count: int, *limits: dict[str, Any]) -> list[dict[str, Any]]:
        callers = [f"c{number}" for number in range(count)]
        return [{"consumers": callers[at : at + 64], "limits": list(limits)} for at in range(0, count, 64)]

    few, many = (plan("free", DAY, overrides=overrides(count, DAY)) for count in (256, 257))
    assert plans_of(compiled(policy({"default": "free"}, localShield=True), few)).shielded
    limits = compiled(policy({"default": "free"}, localShield=True), many)
    assert not plans_of(limits).shielded
    assert ("UnsupportedField", "spec.rateLimit.global.localShield") in reasons(limits)
    own = [{"requests": number + 1, "unit": "Day"} for number in range(8)]
    for count, expected in ((512, []), (513, ["spec.overrides"])):
        loaded = load(plan("free", overrides=overrides(count, *own)))
        assert loaded.object is not None, loaded.faults
        assert [fault.path for fault in check(loaded.object, now=NOW)] == expected


def test_a_domain_is_another_where_routes_say_something_else_of_plans_and_its_counters_are_the_same() -> None:
    def in_force(*limits: dict[str, Any]) -> ir.GlobalLimit:
        own = compiled(policy({"default": "free"}), plan("free", *limits))
        found = policies.merge([level(own, of_route=True)], scope="r").policies.global_limit
        assert found is not None
        return found

    one, other_number, two = in_force(DAY), in_force({**DAY, "requests": 6}), in_force(DAY, DAY)
    assert one.domain == other_number.domain != two.domain
    assert one.plans is not None
    assert two.plans is not None
    assert one.plans.home == two.plans.home
