"""Which Plans a policy puts in force, and what tells who calls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controlplane.api.meta import Model
from controlplane.api.scalars import HEADER_NAME_PATTERN, NamespaceName, ObjectName, matches_pattern, refuse


class PlanReference(Model):
    """A Plan."""

    name: ObjectName
    """Name of the Plan, and what callers' plans are called."""
    namespace: NamespaceName | None = None
    """Namespace of the Plan, which then needs a ReferenceGrant; that of the policy when absent."""


class PlanIdentity(Model):
    """What tells who calls, and by which plan."""

    from_: Annotated[Literal["Key", "Token", "Headers"], Field(alias="from")] = "Key"
    """Key: the API key, where a SecurityPolicy asks for `consumers`. Token: claims of the token that `jwt` asks for.
    Headers: request headers that policies set from either; those of a client are removed."""
    provider: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Token: name of the JWT provider; any of the route's when absent."""
    plan: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Where the name of the plan is: in the metadata of the key (`plan` when absent), a claim (dotted; `plan` when
    absent), a header."""
    consumer: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Where the consumer is: a claim (`sub` when absent), a header. Of a key it is known."""
    tenant: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Where the tenant is: a claim (`tenant` when absent), a header. Of a key it is known."""

    @model_validator(mode="after")
    def _fits_source(self) -> PlanIdentity:
        if self.provider is not None and self.from_ != "Token":
            raise refuse("provider goes with from Token", "provider")
        if self.from_ == "Key":
            for field, value in (("consumer", self.consumer), ("tenant", self.tenant)):
                if value is not None:
                    raise refuse(f"the {field} of a key is known", field)
        if self.from_ == "Headers":
            for field, value in (("plan", self.plan), ("consumer", self.consumer)):
                if value is None:
                    raise refuse(f"from Headers needs {field}", field)
            for field, value in (("plan", self.plan), ("consumer", self.consumer), ("tenant", self.tenant)):
                if value is not None and not matches_pattern(HEADER_NAME_PATTERN, value):
                    raise refuse(f"expected a header name, such as `x-plan`; got {value!r}", field)
        return self


class RateLimitPlans(Model):
    """Limits by who calls: the caller's plan names a Plan, whose limits hold."""

    identity: PlanIdentity = PlanIdentity()
    refs: Annotated[tuple[PlanReference, ...], Field(max_length=64)] = ()
    """The Plans that callers may have; those of the policy's namespace (64) when empty."""
    default: ObjectName
    """Name of the Plan for callers that have none of these."""
    anonymous: ObjectName | None = None
    """Name of the Plan for callers without an identity, who count by their address; that of `default` when absent."""

    @model_validator(mode="after")
    def _refs_differ(self) -> RateLimitPlans:
        names = [each.name for each in self.refs]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise refuse(f"another of refs is called {name!r}, too", f"refs[{index}].name")
        for field, value in (("default", self.default), ("anonymous", self.anonymous)):
            if names and value is not None and value not in names:
                raise refuse(f"{value!r} is none of refs", field)
        return self
