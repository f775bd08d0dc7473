"""Plans: which limits callers have by who they are, as the plans of a BackendTrafficPolicy refer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controlplane import ir
from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.faults import Fault
from controlplane.api.meta import POLICY_GROUP, ObjectKey
from controlplane.api.plan import CallerLimit, Plan, PlanLimit, PlanOverride
from controlplane.api.plans import PlanIdentity, RateLimitPlans
from controlplane.compile.counting import counting, faults_of, without_effect
from controlplane.compile.grants import permitted
from controlplane.compile.view import View
from controlplane.conditions import Condition, false

_FIELD = "spec.rateLimit.global.plans"
# As many as `refs` may name.
_MAX_PLANS = 64
# Limits of single callers: each is a descriptor of the service.
_MAX_OWN_LIMITS = 4096


def plans_of(view: View, policy: BackendTrafficPolicy) -> tuple[ir.Plans | None, tuple[Condition, ...]]:
    """Returns the plans that a policy puts in force, and what is to be said of those that are not there."""
    limit = policy.spec.rate_limit
    wanted = limit.global_.plans if limit is not None and limit.global_ is not None else None
    if wanted is None:
        return None, ()
    found: list[ir.Plan] = []
    conditions: list[Condition] = []
    targets = [*_targets(view, policy.key, wanted)]
    if len(targets) > _MAX_PLANS:
        message = (
            f"of {len(targets)} Plans beside the policy {_MAX_PLANS} are in force; name in refs those that are meant"
        )
        conditions.append(false("ResolvedRefs", "TooManyPlans", message, _FIELD))
        named_first = sorted(targets, key=lambda target: target[0].name not in (wanted.default, wanted.anonymous))
        targets = sorted(named_first[:_MAX_PLANS])
    for target, field in targets:
        plan = _plan(view, policy.key, target, field)
        if isinstance(plan, Condition):
            conditions.append(plan)
        else:
            found.append(plan)
    made = ir.Plans(_identity(wanted.identity), tuple(found), wanted.default, wanted.anonymous or wanted.default)
    conditions += _missing(made, wanted)
    return made, tuple(conditions)


def check_plan(plan: Plan) -> Iterator[Fault]:
    """Yields what is wrong with a Plan that its schema accepts."""
    for field, limit in _limits(plan):
        limit_field = f"{field}.requests"
        yield from faults_of(limit, requests=limit.requests, field=field, limit_field=limit_field)
    own = sum(len((*each.consumers, *each.tenants)) * max(1, len(each.limits)) for each in plan.spec.overrides)
    if own > _MAX_OWN_LIMITS:
        yield Fault("spec.overrides", f"{own} limits of single callers; at most {_MAX_OWN_LIMITS} are supported")
    seen: dict[tuple[str, str], str] = {}
    for index, override in enumerate(plan.spec.overrides):
        for sort in ("consumers", "tenants"):
            for position, name in enumerate(getattr(override, sort)):
                field = f"spec.overrides[{index}].{sort}[{position}]"
                first = seen.setdefault((sort, name), field)
                if first != field:
                    yield Fault(field, f"{name!r} has other limits already, by {first}")


def plan_conditions(plan: Plan) -> Iterator[Condition]:
    """Yields what of a Plan is not in force."""
    for field, limit in _limits(plan):
        yield from without_effect(limit, field)


def _limits(plan: Plan) -> Iterator[tuple[str, CallerLimit]]:
    for index, limit in enumerate(plan.spec.limits):
        yield f"spec.limits[{index}]", limit
    for index, override in enumerate(plan.spec.overrides):
        for position, limit in enumerate(override.limits):
            yield f"spec.overrides[{index}].limits[{position}]", limit


def _targets(view: View, policy: ObjectKey, wanted: RateLimitPlans) -> Iterator[tuple[ObjectKey, str]]:
    if not wanted.refs:
        yield from ((key, _FIELD) for key in view.plans(policy.namespace))
    for index, ref in enumerate(wanted.refs):
        key = ObjectKey(POLICY_GROUP, "Plan", ref.namespace or policy.namespace, ref.name)
        yield key, f"{_FIELD}.refs[{index}]"


def _plan(view: View, policy: ObjectKey, target: ObjectKey, field: str) -> ir.Plan | Condition:
    if not permitted(view, source=policy, target=target):
        message = f"no ReferenceGrant in namespace {target.namespace} lets this policy refer to {target}"
        return false("ResolvedRefs", "RefNotPermitted", message, field)
    found = view.get(target)
    if not isinstance(found, Plan):
        message = f"{target} does not exist, or never was valid; its callers have the default plan"
        return false("ResolvedRefs", "PlanNotFound", message, field)
    return _compiled(found)


def _compiled(plan: Plan) -> ir.Plan:
    limits, overrides = plan.spec.limits, plan.spec.overrides
    return ir.Plan(
        name=plan.metadata.name,
        origin=f"{plan.metadata.namespace}/{plan.metadata.name}",
        per_consumer=_per("Consumer", limits),
        per_tenant=_per("Tenant", limits),
        together=_per("Plan", limits),
        consumers=tuple(_override(name, each) for each in overrides for name in each.consumers),
        tenants=tuple(_override(name, each) for each in overrides for name in each.tenants),
    )


def _per(per: ir.Per, limits: Iterable[PlanLimit]) -> tuple[ir.CallerLimit, ...]:
    return tuple(_limit(each) for each in limits if each.per == per)


def _override(caller: str, override: PlanOverride) -> ir.Override:
    return ir.Override(caller, tuple(_limit(each) for each in override.limits))


def _limit(limit: CallerLimit) -> ir.CallerLimit:
    return ir.CallerLimit(limit.requests, limit.unit, counting(limit), limit.shadow_mode)


def _identity(identity: PlanIdentity) -> ir.PlanIdentity:
    token = identity.from_ == "Token"
    return ir.PlanIdentity(
        source=identity.from_,
        plan=identity.plan or "plan",
        consumer=identity.consumer or ("sub" if token else ""),
        tenant=identity.tenant or ("tenant" if token else ""),
        provider=identity.provider,
    )


def _missing(plans: ir.Plans, wanted: RateLimitPlans) -> Iterator[Condition]:
    for field, name, who in (
        ("default", wanted.default, "callers without a plan of their own"),
        ("anonymous", wanted.anonymous, "anonymous callers"),
    ):
        if name is not None and plans.find(name) is None:
            message = f"there is no Plan {name} in force; {who} are not limited"
            yield false("ResolvedRefs", "PlanNotFound", message, f"{_FIELD}.{field}")
