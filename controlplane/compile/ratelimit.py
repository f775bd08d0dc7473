"""BackendTrafficPolicy.rateLimit, each policy on its own: how many requests which clients may send."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from controlplane import ir
from controlplane.api import ratelimit as api
from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.fields import unsupported_fields
from controlplane.api.meta import ObjectKey
from controlplane.compile.counting import counting, without_effect
from controlplane.conditions import Condition

_RULE = re.compile(r"spec\.rateLimit\.(global|local)\.rules\[(\d+)\]")
# Without these a rule would refuse more requests than it should.
_CHANGES_WHOM = (".clientSelectors[", ".shadowMode")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one BackendTrafficPolicy limits; neither of the two where it is about other things."""

    key: ObjectKey
    created_s: float = 0.0
    local_limit: ir.LocalLimit | None = None
    global_limit: ir.GlobalLimit | None = None
    stands_alone: bool = False
    conditions: tuple[Condition, ...] = ()


def compile_limits(policy: BackendTrafficPolicy) -> Limits:
    """Compiles a policy; a rule whose selection is not supported is left out, and a condition says so."""
    conditions = list[Condition]()
    left_out = _unsupported(policy, conditions)
    limit = policy.spec.rate_limit
    local = _rules(limit.local.rules, "local", left_out) if limit is not None and limit.local is not None else ()
    global_ = _rules(limit.global_.rules, "global", left_out) if limit is not None and limit.global_ is not None else ()
    created = policy.metadata.creation_timestamp
    return Limits(
        key=policy.key,
        created_s=created.timestamp() if created else 0.0,
        local_limit=ir.LocalLimit(local) if local else None,
        global_limit=_global(policy, global_) if global_ else None,
        stands_alone=policy.spec.merge_type == "Replace",
        conditions=tuple(conditions),
    )


def _unsupported(policy: BackendTrafficPolicy, conditions: list[Condition]) -> set[tuple[str, int]]:
    left_out: set[tuple[str, int]] = set()
    for path, mark in unsupported_fields(policy.spec):
        field = f"spec.{path}"
        rule = _RULE.match(field)
        what = "has no effect yet"
        if rule is not None and any(each in field[rule.end() :] for each in _CHANGES_WHOM):
            left_out.add((rule[1], int(rule[2])))
            what = "is not supported yet, so that the rule is not enforced"
        hint = f"; {mark.hint}" if mark.hint else ""
        conditions.append(Condition("NotSupported", "True", "UnsupportedField", what + hint, field))
    if policy.spec.merge_type in ("StrategicMerge", "JSONMerge"):
        message = "fields are merged whole; what is inside them is not merged yet"
        conditions.append(Condition("NotSupported", "True", "UnsupportedField", message, "spec.mergeType"))
    limit = policy.spec.rate_limit
    for index, each in enumerate(limit.local.rules if limit is not None and limit.local is not None else ()):
        if each.shared:
            message = "has no effect: each Envoy counts local limits for each rule of a route"
            field = f"spec.rateLimit.local.rules[{index}].shared"
            conditions.append(Condition("NotSupported", "True", "UnsupportedField", message, field))
    for index, each in enumerate(limit.global_.rules if limit is not None and limit.global_ is not None else ()):
        conditions += without_effect(each, f"spec.rateLimit.global.rules[{index}]")
    return left_out


def _global(policy: BackendTrafficPolicy, rules: tuple[ir.LimitRule, ...]) -> ir.GlobalLimit:
    assert policy.spec.rate_limit is not None
    assert policy.spec.rate_limit.global_ is not None
    return ir.GlobalLimit(
        policy=f"{policy.metadata.namespace}/{policy.metadata.name}",
        rules=rules,
        fail_open=policy.spec.rate_limit.global_.failure_mode == "Open",
    )


def _rules(
    rules: Sequence[api.RateLimitRule], section: str, left_out: set[tuple[str, int]]
) -> tuple[ir.LimitRule, ...]:
    return tuple(_rule(rule) for index, rule in enumerate(rules) if (section, index) not in left_out)


def _rule(rule: api.RateLimitRule) -> ir.LimitRule:
    conditions = rule.client_selectors
    cost = rule.cost.request.number if rule.cost is not None and rule.cost.request is not None else None
    made = ir.LimitRule(
        requests=rule.limit.requests,
        unit=rule.limit.unit,
        headers=tuple(_value(each) for condition in conditions for each in condition.headers),
        query=tuple(_value(each) for condition in conditions for each in condition.query_params),
        methods=tuple((each.value, each.invert) for condition in conditions for each in condition.methods),
        paths=tuple(ir.PathRule(c.path.type, c.path.value, c.path.invert) for c in conditions if c.path is not None),
        sources=tuple(
            ir.SourceSelector(c.source_cidr.value, c.source_cidr.type == "Distinct")
            for c in conditions
            if c.source_cidr is not None
        ),
        cost=1 if cost is None else cost,
        shared=rule.shared,
    )
    if not isinstance(rule, api.GlobalRateLimitRule):
        return made
    return replace(made, counting=counting(rule), shadow=rule.shadow_mode)


def _value(match: api.HeaderMatch | api.QueryParamMatch) -> ir.ValueSelector:
    return ir.ValueSelector(match.name, match.type, match.value or "", match.invert)
