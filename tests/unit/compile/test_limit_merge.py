"""How limits of a Gateway, a route and a rule become those of one rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane import ir
from controlplane.api.meta import POLICY_GROUP, ObjectKey
from controlplane.compile.limit_merge import Holding, Part, held
from controlplane.compile.ratelimit import Limits

GENERAL, POSTS = ir.LimitRule(5, "Second"), ir.LimitRule(2, "Second", methods=((("POST", False),),))
BY_CLAIM = ir.LimitRule(3, "Day", claims=(ir.ClaimSelector("sub", "Distinct"),))
JWT = ir.Jwt((ir.JwtProvider("main", "https://issuer.example", (), ir.Jwks("{}")),))


def limits(name: str, *rules: ir.LimitRule, local: tuple[ir.LimitRule, ...] = (), **fields: Any) -> Limits:
    fail_open = fields.get("fail_open")
    return Limits(
        ObjectKey(POLICY_GROUP, "BackendTrafficPolicy", "demo", name),
        global_limit=ir.GlobalLimit(f"demo/{name}", rules, fail_open is not False) if rules else None,
        local_limit=ir.LocalLimit(local) if local else None,
        **fields,
    )


def merged(gateway: Limits | None, route: Limits | None, rule: Limits | None = None) -> Holding:
    return held([Part(gateway, False, ""), Part(route, True, ""), Part(rule, True, "r/rule")])


def numbers(holding: Holding) -> tuple[list[int], list[int]]:
    local, shared = holding.local_limit(), holding.global_limit()
    return [each.requests for each in local.rules] if local else [], [
        r.requests for r in shared.rules
    ] if shared else []


GATEWAY = limits("edge", ir.LimitRule(100, "Day", home="demo/edge", name="y"), local=(GENERAL, POSTS))


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (None, ([5, 2], [100])),
        (limits("r"), ([5, 2], [100])),
        (limits("r", stands_alone=True), ([], [])),
        (limits("r", ir.LimitRule(7, "Day")), ([], [7])),
        (limits("r", ir.LimitRule(7, "Day"), stands_alone=True), ([], [7])),
        (limits("r", ir.LimitRule(7, "Day"), merge_type="JSONMerge"), ([5, 2], [7])),
        (limits("r", ir.LimitRule(7, "Day"), merge_type="StrategicMerge"), ([5, 2], [100, 7])),
        (limits("r", local=(POSTS,), merge_type="StrategicMerge"), ([5, 2, 2], [100])),
        (limits("r", local=(replace(GENERAL, requests=9),), merge_type="StrategicMerge"), ([2, 9], [100])),
        (
            limits("r", local=(replace(GENERAL, requests=9, shadow=True),), merge_type="StrategicMerge"),
            ([5, 2, 9], [100]),
        ),
        (limits("r", local=(replace(GENERAL, requests=9, cost=2),), merge_type="StrategicMerge"), ([5, 2, 9], [100])),
        (limits("r", local=(POSTS,), merge_type="JSONMerge"), ([2], [100])),
    ],
)
def test_a_routes_limits_are_beside_those_of_its_gateway_or_in_their_place(
    route: Limits | None, expected: tuple[list[int], list[int]]
) -> None:
    assert numbers(merged(GATEWAY, route)) == expected


def test_what_is_not_merged_keeps_its_domain_and_what_is_has_one_of_its_own_and_counts_at_home() -> None:
    own = limits("r", ir.LimitRule(7, "Day", shared=True, home="demo/r", name="x"), merge_type="StrategicMerge")
    assert merged(GATEWAY, limits("r", local=(POSTS,), merge_type="JSONMerge")).global_limit() == GATEWAY.global_limit
    found = merged(GATEWAY, own).global_limit()
    assert found is not None
    assert GATEWAY.global_limit is not None
    assert own.global_limit is not None
    assert [(rule.home, rule.name) for rule in found.rules] == [("demo/edge", "y"), ("demo/r", "x")]
    assert found.domain not in (GATEWAY.global_limit.domain, own.global_limit.domain)


def test_a_policy_of_a_listener_and_of_its_route_holds_once() -> None:
    both = limits("p", ir.LimitRule(7, "Day"), local=(POSTS,), merge_type="StrategicMerge")
    holding = merged(both, both)
    assert numbers(holding) == ([2], [7])
    assert holding.global_limit() == both.global_limit
    assert holding.notes == ()
    assert numbers(held([Part(GATEWAY, False, ""), Part(both, False, ""), Part(both, True, "")])) == (
        [5, 2, 2],
        [100, 7],
    )


def test_a_limit_of_a_rule_counts_for_that_and_what_it_inherits_for_the_route() -> None:
    of_route = limits("r", ir.LimitRule(7, "Day"), merge_type="StrategicMerge")
    of_rule = limits("u", ir.LimitRule(8, "Day"), merge_type="StrategicMerge")
    holding = merged(None, of_route, of_rule)
    found = holding.global_limit()
    assert found is not None
    assert [rule.scope for rule in found.rules] == ["", "r/rule"]
    assert holding.scope(found, "r") == "r"
    alone = merged(None, of_route, replace(of_rule, merge_type=None))
    assert alone.scope(alone.global_limit(), "r") == "r/rule"


@pytest.mark.parametrize(
    ("gateways", "routes", "expected"),
    [(None, None, True), (False, None, False), (False, True, True), (None, False, False), (True, None, True)],
)
def test_what_holds_without_the_service_is_as_the_most_specific_says_that_says_anything(
    gateways: bool | None, routes: bool | None, expected: bool
) -> None:
    of_gateway = limits("edge", GENERAL, fail_open=gateways)
    found = merged(of_gateway, limits("r", POSTS, merge_type="StrategicMerge", fail_open=routes)).global_limit()
    assert found is not None
    assert found.fail_open is expected


@pytest.mark.parametrize(
    ("gateway", "route", "of_route", "left"),
    [
        (limits("edge", GENERAL, BY_CLAIM), None, False, [5, 3]),
        (limits("edge", GENERAL, BY_CLAIM), None, True, [5]),
        (None, limits("r", BY_CLAIM), True, [3]),
        (None, limits("r", BY_CLAIM), False, [3]),
        (limits("edge", BY_CLAIM), limits("r", BY_CLAIM, merge_type="StrategicMerge"), True, [3]),
    ],
)
def test_a_gateways_limit_reads_no_claims_of_tokens_that_a_route_accepts(
    gateway: Limits | None, route: Limits | None, of_route: bool, left: list[int]
) -> None:
    holding = merged(gateway, route)
    bound = holding.bound(JWT, of_route=of_route)
    assert numbers(bound)[1] == left
    dropped = sum(len(numbers(each)[1]) * sign for each, sign in ((holding, 1), (bound, -1)))
    assert len([note for _, note in bound.notes if note.type == "Accepted"]) == dropped
    assert holding.read_providers(JWT, of_route=of_route) == (frozenset({"main"}) if 3 in left else frozenset())
    assert numbers(holding.bound(None, of_route=False))[1] == [number for number in numbers(holding)[1] if number != 3]


def test_a_provider_that_is_not_there_is_named() -> None:
    elsewhere = replace(BY_CLAIM, claims=(), cost=ir.MetadataSource("jwt", "other:cost", of_token=True))
    bound = merged(None, limits("r", elsewhere)).bound(JWT, of_route=True)
    ((_, note),) = bound.notes
    assert (note.field, "provider other" in note.message) == ("spec.rateLimit.global.rules[0]", True)
    assert bound.global_limit() is None


def test_rules_in_quota_mode_that_are_merged_are_asked_about_and_both_policies_are_told() -> None:
    quota = ir.LimitRule(100, "Day", counting=ir.Counting(quota=True))
    above = limits("edge", quota)
    own = limits("r", replace(quota, requests=7), merge_type="StrategicMerge")
    holding = merged(above, own).bound(None, of_route=True)
    limit = holding.global_limit()
    assert limit is not None
    assert not limit.has_quotas
    told = [(key.name, note.field) for key, note in holding.notes if note.type == "NotSupported"]
    assert told == [
        ("edge", "spec.rateLimit.global.rules[0].mode"),
        ("r", "spec.mergeType"),
        ("r", "spec.rateLimit.global.rules[0].mode"),
    ]
    alone = merged(above, None).bound(None, of_route=True)
    assert alone.notes == ()
    assert alone.global_limit() == above.global_limit
