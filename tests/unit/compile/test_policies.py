"""The merge of policies: the more specific field wins, a Gateway's authentication stays, the older policy counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile.policies import Level, Merged, merge
from controlplane.compile.ratelimit import Limits
from controlplane.compile.security import Security, broken

CORS = ir.Cors(("*",))
KEYS = ir.ApiKeys((("acme", "k"),), (ir.KeySource(("x-key",)),))
ALLOW, DENY = ir.Authorization((), True), ir.Authorization((), False)
LIMIT = ir.GlobalLimit("demo/limits", (ir.LimitRule(1, "Day"),))


def jwt(name: str) -> ir.Jwt:
    return ir.Jwt((ir.JwtProvider(name, "", (), ir.Jwks("{}")),))


def key(name: str, kind: str = "SecurityPolicy") -> ObjectKey:
    return ObjectKey("dragoman.dev", kind, "demo", name)


def security(name: str, *, created_s: float = 0.0, **fields: Any) -> Security:
    return Security(key(name), created_s, **fields)


def limits(name: str, **fields: Any) -> Limits:
    return Limits(key(name, "BackendTrafficPolicy"), **fields)


def merged(*, gateway: Any = (), listener: Any = (), route: Any = (), rule: Any = ()) -> Merged:
    levels = [Level(tuple(gateway)), Level(tuple(listener)), Level(tuple(route), of_route=True)]
    return merge([*levels, Level(tuple(rule), of_route=True, scope="route/rule")], scope="route")


def told(result: Merged) -> list[tuple[str, str, str]]:
    return [(policy.name, each.type, each.field) for policy, each in result.notes]


def test_fields_of_different_targets_add_up_and_the_more_specific_one_wins() -> None:
    result = merged(
        gateway=[security("g", cors=CORS, jwt=jwt("g"))],
        route=[security("r", cors=ir.Cors(("https://a",)), api_keys=KEYS)],
        rule=[security("u", api_keys=ir.ApiKeys((), ()))],
    )
    assert result.policies.cors == ir.Cors(("https://a",))
    assert result.policies.jwt == jwt("g")
    assert result.policies.api_keys == ir.ApiKeys((), ())
    assert result.notes == ()
    assert result.policies.origins == tuple(f"SecurityPolicy demo/{name}" for name in "gru")


@pytest.mark.parametrize("level", ["gateway", "listener"])
def test_a_route_does_not_replace_the_authentication_above_it(level: str) -> None:
    above = {level: [security("g", jwt=jwt("g"), authorization=DENY)]}
    result = merged(**above, route=[security("r", jwt=jwt("r"), authorization=ALLOW, cors=CORS)])
    assert (result.policies.jwt, result.policies.authorization) == (jwt("g"), DENY)
    assert result.policies.own_authorization == ALLOW  # and so both have to admit
    assert result.policies.cors == CORS
    assert told(result) == [("r", "Overridden", "spec.jwt")]


def test_a_listener_does_replace_its_gateways_authentication() -> None:
    result = merged(gateway=[security("g", jwt=jwt("g"))], listener=[security("l", jwt=jwt("l"))])
    assert result.policies.jwt == jwt("l")


def test_both_must_say_so_for_authentication_to_be_dropped() -> None:
    drops = security("r", drops_parent=True, api_keys=KEYS)
    kept = merged(gateway=[security("g", jwt=jwt("g"))], route=[drops])
    assert kept.policies.jwt == jwt("g")
    assert told(kept) == [("r", "Overridden", "spec.dropParentAuthentication")]
    gone = merged(gateway=[security("g", jwt=jwt("g"), may_be_dropped=True)], route=[drops])
    assert (gone.policies.jwt, gone.policies.api_keys) == (None, KEYS)
    assert gone.notes == ()
    unsaid = merged(gateway=[security("g", jwt=jwt("g"), may_be_dropped=True)], route=[security("r", api_keys=KEYS)])
    assert unsaid.policies.jwt == jwt("g")


def test_a_policy_that_stands_alone_drops_what_is_no_authentication() -> None:
    result = merged(
        gateway=[security("g", jwt=jwt("g"), cors=CORS), limits("g", global_limit=LIMIT)],
        route=[security("r", stands_alone=True, api_keys=KEYS), limits("r", stands_alone=True)],
    )
    assert (result.policies.cors, result.policies.jwt, result.policies.api_keys) == (None, jwt("g"), KEYS)
    assert result.policies.global_limit is None


def test_of_two_policies_with_one_target_the_older_counts_then_the_first_by_name() -> None:
    older, newer = security("z", created_s=1.0, cors=CORS), security("a", created_s=2.0, api_keys=KEYS)
    result = merged(route=[newer, older])
    assert (result.policies.cors, result.policies.api_keys) == (CORS, None)
    assert [(policy.name, each.reason) for policy, each in result.notes] == [("a", "Conflicted")]
    by_name = merged(route=[security("b", api_keys=KEYS), security("a", cors=CORS)])
    assert by_name.policies.cors == CORS


def test_a_policy_that_never_was_good_denies_whatever_else_is_there() -> None:
    for where in ("gateway", "listener", "route", "rule"):
        result = merged(**{where: [security("a", cors=CORS), broken(key("b"))]})
        assert result.policies.deny is not None
        assert result.policies.deny.status == 500


def test_rules_are_bound_to_the_provider_that_is_in_force_and_lose_their_meaning_without_one() -> None:
    allow = ir.AuthorizationRule(True, provider="p", scopes=("read",))
    deny = ir.AuthorizationRule(False, provider="p", scopes=("banned",))
    both = merged(
        gateway=[security("g", jwt=jwt("p"))], route=[security("r", authorization=ir.Authorization((deny, allow)))]
    )
    assert both.policies.authorization is not None
    assert both.policies.jwt is not None
    (provider,) = both.policies.jwt.providers
    assert [rule.provider for rule in both.policies.authorization.rules] == [provider.id, provider.id]
    alone = merged(route=[security("r", authorization=ir.Authorization((allow,)))])
    assert alone.policies.authorization == ir.Authorization(())
    assert alone.policies.deny is None
    blind = merged(route=[security("r", authorization=ir.Authorization((deny,), default_allow=True))])
    assert blind.policies.deny is not None


def test_a_gateways_rules_never_take_a_routes_provider_for_their_own() -> None:
    allow = ir.AuthorizationRule(True, provider="p", scopes=("read",))
    result = merged(
        gateway=[security("g", authorization=ir.Authorization((allow,)))], route=[security("r", jwt=jwt("p"))]
    )
    assert result.policies.authorization == ir.Authorization(())
    assert told(result) == [("g", "Accepted", "spec.authorization.rules[0].principal.jwt.provider")]
    refusing = ir.Authorization((replace(allow, allow=False),), default_allow=True)
    result = merged(gateway=[security("g", authorization=refusing)], route=[security("r", jwt=jwt("p"))])
    assert result.policies.deny is not None


def test_claims_are_handed_on_only_where_rules_read_them() -> None:
    about_claims = ir.Authorization((ir.AuthorizationRule(True, provider="p", scopes=("read",)),))
    about_addresses = ir.Authorization((ir.AuthorizationRule(True, cidrs=("192.0.2.0/24",)),))
    for authorization, read in ((about_claims, True), (about_addresses, False), (None, False)):
        result = merged(route=[security("r", jwt=jwt("p"), authorization=authorization)])
        assert result.policies.jwt is not None
        assert [provider.claims_read for provider in result.policies.jwt.providers] == [read]


def test_the_most_specific_limit_replaces_the_others_and_counts_for_its_own_target() -> None:
    of_gateway = limits("g", global_limit=LIMIT)
    assert merged(gateway=[of_gateway]).policies.limit_scope == "route"
    own = limits("u", local_limit=ir.LocalLimit((ir.LimitRule(2, "Hour"),)))
    result = merged(gateway=[of_gateway], rule=[own])
    assert (result.policies.global_limit, result.policies.local_limit) == (None, own.local_limit)
    ruled = merged(gateway=[of_gateway], rule=[limits("u", global_limit=LIMIT)])
    assert ruled.policies.limit_scope == "route/rule"
    shared = ir.GlobalLimit("demo/limits", (ir.LimitRule(1, "Day", shared=True),))
    assert merged(gateway=[limits("g", global_limit=shared)]).policies.limit_scope == ""


def test_many_keys_go_to_ext_authz_unless_it_is_asked_about_consumers_already() -> None:
    hashed, consumers = ir.KeyPolicy("demo/g", (), (("acme", "00"),)), ir.KeyPolicy("demo/r", ())
    many = security("g", api_keys=KEYS, hashed_keys=hashed)
    assert merged(gateway=[many]).policies.keys == hashed
    assert merged(gateway=[many]).policies.api_keys is None
    with_consumers = merged(gateway=[many], route=[security("r", keys=consumers)])
    assert (with_consumers.policies.keys, with_consumers.policies.api_keys) == (consumers, KEYS)
