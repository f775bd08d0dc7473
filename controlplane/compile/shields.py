"""Which limits an Envoy can have a bucket before, so that who is far above them is refused without a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from controlplane import ir
from controlplane.conditions import Condition

# Each is a bucket in the settings of each route.
_MAX_OWN_LIMITS = 256


def may_shield(plans: ir.Plans) -> bool:
    """Says whether plans can be shielded: not where very many callers have limits of their own."""
    overrides = (each for plan in plans.plans for each in (*plan.consumers, *plan.tenants))
    return sum(max(1, len(each.limits)) for each in overrides) <= _MAX_OWN_LIMITS


def unshielded_plans(plans: ir.Plans | None) -> Iterator[Condition]:
    """Yields that `localShield` has no effect on plans."""
    if plans is not None and not may_shield(plans):
        message = f"has no effect on plans: more than {_MAX_OWN_LIMITS} limits are of single callers"
        yield Condition("NotSupported", "True", "UnsupportedField", message, "spec.rateLimit.global.localShield")


def shielded(rules: Sequence[ir.LimitRule]) -> tuple[ir.LimitRule, ...]:
    """Returns the rules with those marked that can be shielded."""
    return tuple(replace(each, shielded=_hindrance(each) is None) for each in rules)


def unshielded(rules: Sequence[ir.LimitRule]) -> Iterator[Condition]:
    """Yields what `localShield` has no effect on."""
    for index, rule in enumerate(rules):
        reason = _hindrance(rule)
        if reason is not None:
            message = f"has no effect on rules[{index}]: {reason}"
            yield Condition("NotSupported", "True", "UnsupportedField", message, "spec.rateLimit.global.localShield")


def _hindrance(rule: ir.LimitRule) -> str | None:
    if rule.shadow:
        return "with shadowMode all requests pass"
    if rule.counting.until_done:
        return "a bucket cannot tell how many requests run at a time"
    if rule.counting.quota:
        return "with mode Quota the service is not asked anyway"
    if rule.limit_from is not None:
        return "its limit comes with requests"
    if not isinstance(rule.cost, int) or rule.cost < 1:
        return "what a request counts is not known before"
    return None
