"""BackendTrafficPolicy.rateLimit, each policy on its own: how many requests which clients may send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from controlplane import ir
from controlplane.api import ratelimit as api
from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.fields import unsupported_fields
from controlplane.api.meta import POLICY_GROUP, ObjectKey
from controlplane.compile.counting import counting, not_by_quota
from controlplane.compile.plans import plans_of
from controlplane.compile.quota import hindrances
from controlplane.compile.shields import may_shield, shielded, unshielded, unshielded_plans
from controlplane.compile.view import View
from controlplane.conditions import Condition

# The namespace of metadata in which Envoy's jwt_authn filter leaves claims.
_TOKENS: Final = "envoy.filters.http.jwt_authn"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one BackendTrafficPolicy limits; neither of the two where it is about other things.

    `fail_open` is what it says of a service that cannot be reached, None where it says nothing.
    """

    key: ObjectKey
    created_s: float = 0.0
    local_limit: ir.LocalLimit | None = None
    global_limit: ir.GlobalLimit | None = None
    stands_alone: bool = False
    merge_type: Literal["StrategicMerge", "JSONMerge"] | None = None
    fail_open: bool | None = None
    conditions: tuple[Condition, ...] = ()


def compile_limits(policy: BackendTrafficPolicy, view: View) -> Limits:
    """Compiles a policy; what has no effect is a condition."""
    plans, missing = plans_of(view, policy)
    limit = policy.spec.rate_limit
    local = _rules(limit.local.rules) if limit is not None and limit.local is not None else ()
    asked = limit.global_.rules if limit is not None and limit.global_ is not None else ()
    hindered = dict(hindrances(asked, enabled=view.quota_mode))
    global_ = tuple(_global_rule(rule, quota=index not in hindered) for index, rule in enumerate(asked))
    created = policy.metadata.creation_timestamp
    return Limits(
        key=policy.key,
        created_s=created.timestamp() if created else 0.0,
        local_limit=ir.LocalLimit(local) if local else None,
        global_limit=_global(policy, global_, plans) if global_ or plans is not None else None,
        stands_alone=policy.spec.merge_type == "Replace",
        merge_type=policy.spec.merge_type if policy.spec.merge_type != "Replace" else None,
        fail_open=_fail_open(policy),
        conditions=(
            *_without_effect(policy),
            *(_uncounted(policy) if not view.rate_limit_service and _asks(global_, plans) else ()),
            *(not_by_quota(reason, f"spec.rateLimit.global.rules[{index}]") for index, reason in hindered.items()),
            *((*unshielded(global_), *unshielded_plans(plans)) if _shield(policy) else ()),
            *missing,
        ),
    )


def _without_effect(policy: BackendTrafficPolicy) -> Iterator[Condition]:
    for path, mark in unsupported_fields(policy.spec):
        yield _not_supported("has no effect yet" + (f"; {mark.hint}" if mark.hint else ""), f"spec.{path}")
    limit = policy.spec.rate_limit
    shared = limit.global_.rules if limit is not None and limit.global_ is not None else ()
    for index, each in enumerate(shared):
        cost = each.cost
        if cost is not None and cost.request is not None and cost.request.number == 0 and not _has_cost(cost.response):
            message = "has no effect: with cost 0, and no cost of responses, nothing is ever counted"
            yield _not_supported(message, f"spec.rateLimit.global.rules[{index}].cost.request.number")
    local = limit.local.rules if limit is not None and limit.local is not None else ()
    for index, each in enumerate(local):
        field = f"spec.rateLimit.local.rules[{index}]"
        if each.shared:
            yield _not_supported(
                "has no effect: each Envoy counts local limits for each rule of a route", f"{field}.shared"
            )
        if not each.client_selectors and len(local) > 1:
            for name, given in (("shadowMode", each.shadow_mode), ("cost", each.cost is not None)):
                if given:
                    message = "with it the rule counts the requests of other rules too, not only those of none"
                    yield _not_supported(message, f"{field}.{name}")
        elif each.client_selectors and each.shadow_mode and any(not other.client_selectors for other in local):
            message = (
                "the requests that it is about pass without any limit: the rule for all others does not count them"
            )
            yield _not_supported(message, f"{field}.shadowMode")


def _has_cost(specifier: api.RateLimitCostSpecifier | None) -> bool:
    return specifier is not None and specifier.number != 0


def _asks(rules: Sequence[ir.LimitRule], plans: ir.Plans | None) -> bool:
    return plans is not None or any(not each.counting.quota for each in rules)


def _uncounted(policy: BackendTrafficPolicy) -> Iterator[Condition]:
    then = "all requests are answered with 503" if _fail_open(policy) is False else "no request is refused"
    message = f"has no effect: the control plane has no rate limit service (--ratelimit), so that {then}"
    yield _not_supported(message, "spec.rateLimit.global")


def _not_supported(message: str, field: str) -> Condition:
    return Condition("NotSupported", "True", "UnsupportedField", message, field)


def _fail_open(policy: BackendTrafficPolicy) -> bool | None:
    limit = policy.spec.rate_limit.global_ if policy.spec.rate_limit is not None else None
    if limit is None or "failure_mode" not in limit.model_fields_set:
        return None
    return limit.failure_mode == "Open"


def _global(policy: BackendTrafficPolicy, rules: tuple[ir.LimitRule, ...], plans: ir.Plans | None) -> ir.GlobalLimit:
    assert policy.spec.rate_limit is not None
    assert policy.spec.rate_limit.global_ is not None
    shield = _shield(policy)
    home = _home(policy.key)
    return ir.GlobalLimit(
        policy=f"{policy.metadata.namespace}/{policy.metadata.name}",
        rules=tuple(_at_home(home, shielded(rules) if shield else rules)),
        plans=_plans_at_home(home, plans, shield=shield) if plans is not None else None,
        fail_open=policy.spec.rate_limit.global_.failure_mode == "Open",
    )


def _home(policy: ObjectKey) -> str:
    """Returns what stands before the counters of a policy: those of another group may have its name, too."""
    title = f"{policy.namespace}/{policy.name}"
    return title if policy.group == POLICY_GROUP else f"{policy.group}/{title}"


def _at_home(home: str, rules: Sequence[ir.LimitRule]) -> Iterator[ir.LimitRule]:
    """Names rules by what they count, so that an edit of one, or beside it, has nobody count anew."""
    seen: Counter[str] = Counter()
    for rule in rules:
        counted = rule.counted
        # Two limits on the same requests count apart: one may be tried out in shadow mode beside the other.
        yield replace(rule, home=home, name=f"{counted}-{seen[counted]}" if seen[counted] else counted)
        seen[counted] += 1


def _plans_at_home(home: str, plans: ir.Plans, *, shield: bool) -> ir.Plans:
    return replace(plans, home=f"{home}/{ir.digest(plans.identity)}", shielded=shield and may_shield(plans))


def _shield(policy: BackendTrafficPolicy) -> bool:
    limit = policy.spec.rate_limit.global_ if policy.spec.rate_limit is not None else None
    return limit is not None and limit.local_shield


def _rules(rules: Sequence[api.RateLimitRule]) -> tuple[ir.LimitRule, ...]:
    return tuple(map(_rule, rules))


def _global_rule(rule: api.GlobalRateLimitRule, *, quota: bool) -> ir.LimitRule:
    counted = counting(rule)
    return replace(_rule(rule), counting=replace(counted, quota=True) if quota and rule.mode == "Quota" else counted)


def _rule(rule: api.RateLimitRule) -> ir.LimitRule:
    conditions = rule.client_selectors
    cost = rule.cost
    return ir.LimitRule(
        requests=rule.limit.requests,
        unit=rule.limit.unit,
        headers=tuple(_value(each) for condition in conditions for each in condition.headers),
        query=tuple(_value(each) for condition in conditions for each in condition.query_params),
        methods=tuple(tuple((each.value, each.invert) for each in c.methods) for c in conditions if c.methods),
        paths=tuple(ir.PathRule(c.path.type, c.path.value, c.path.invert) for c in conditions if c.path is not None),
        sources=tuple(
            ir.SourceSelector(c.source_cidr.value, c.source_cidr.type == "Distinct", c.source_cidr.invert)
            for c in conditions
            if c.source_cidr is not None
        ),
        claims=tuple(_claim(each) for condition in conditions for each in condition.claims),
        cost=_cost(cost.request) if cost is not None and cost.request is not None else 1,
        response_cost=_cost(cost.response) if cost is not None and cost.response is not None else None,
        limit_from=_metadata(rule.limit.from_metadata) if rule.limit.from_metadata is not None else None,
        headers_shown=_headers_shown(rule),
        shared=rule.shared,
        shadow=rule.shadow_mode,
    )


def _headers_shown(rule: api.RateLimitRule) -> bool:
    # Who is told that nothing is left stops by himself, and a limit that is tried out is to change nothing.
    return rule.x_rate_limit_headers != "Off" and (not rule.shadow_mode or rule.x_rate_limit_headers is not None)


def _claim(match: api.ClaimMatch) -> ir.ClaimSelector:
    array = match.value_type == "StringArray"
    return ir.ClaimSelector(match.name, match.type, match.values, array, match.invert, match.provider)


def _cost(specifier: api.RateLimitCostSpecifier) -> int | ir.MetadataSource:
    if specifier.metadata is not None:
        return _metadata(specifier.metadata)
    assert specifier.number is not None
    return specifier.number


def _metadata(source: api.RateLimitMetadata) -> ir.MetadataSource:
    return ir.MetadataSource(source.namespace, source.key, of_token=source.namespace == _TOKENS)


def _value(match: api.HeaderMatch | api.QueryParamMatch) -> ir.ValueSelector:
    return ir.ValueSelector(match.name, match.type, match.value or "", match.invert)
