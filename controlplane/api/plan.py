"""Plan: how much callers of a class may ask for, such as anonymous, free and paid ones."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from controlplane.api.counting import Counted, RateLimitUnit
from controlplane.api.meta import Model, Resource
from controlplane.api.scalars import CALLER_PATTERN, Bool, refuse

_Caller: TypeAlias = Annotated[str, Field(min_length=1, max_length=256, pattern=CALLER_PATTERN)]
_Callers: TypeAlias = Annotated[tuple[_Caller, ...], Field(max_length=64)]


class CallerLimit(Counted):
    """A limit, and how hits are counted."""

    requests: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    """How many requests in the unit; 0 refuses every request."""
    unit: RateLimitUnit
    """The time."""
    shadow_mode: Bool = False
    """Count, but let all requests pass."""


class PlanLimit(CallerLimit):
    """A limit of a plan, and who has a counter of its own."""

    per: Literal["Consumer", "Tenant", "Plan"] = "Consumer"
    """Who has a counter of its own: each consumer; each tenant (a consumer without one for itself); or nobody, so that
    all callers of the plan count together. Anonymous callers count by their address; of IPv6 by its first
    64 bits."""


class PlanOverride(Model):
    """Other limits for some callers of the plan."""

    consumers: _Callers = ()
    """Consumers that have these limits instead of those that are counted per Consumer."""
    tenants: _Callers = ()
    """Tenants that have these limits instead of those that are counted per Tenant."""
    limits: Annotated[tuple[CallerLimit, ...], Field(max_length=8)] = ()
    """Without any, these callers have no such limit."""

    @model_validator(mode="after")
    def _one_sort(self) -> PlanOverride:
        if bool(self.consumers) == bool(self.tenants):
            raise refuse("set consumers or tenants, and not both")
        return self


class PlanSpec(Model):
    """What callers of the plan may ask for."""

    limits: Annotated[tuple[PlanLimit, ...], Field(max_length=8)] = ()
    """All of them hold; without any, callers of the plan are not limited."""
    overrides: Annotated[tuple[PlanOverride, ...], Field(max_length=64)] = ()


class Plan(Resource):
    """Limits for callers of a class; a BackendTrafficPolicy with `rateLimit.global.plans` puts it in force."""

    kind: Literal["Plan"] = "Plan"
    spec: PlanSpec
