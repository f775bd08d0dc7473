"""Rate limits: how many requests which clients may send."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, model_validator

from controlplane.api.authorization import PathMatch
from controlplane.api.counting import Counted, RateLimitUnit
from controlplane.api.httproute import HTTPMethod
from controlplane.api.meta import Model
from controlplane.api.plans import RateLimitPlans
from controlplane.api.policy import CIDR
from controlplane.api.scalars import (
    METADATA_KEY_PATTERN,
    METADATA_NAMESPACE_PATTERN,
    Bool,
    HeaderName,
    ObjectName,
    refuse,
)

MAX_COST: Final = 1_000_000_000
"""The most that Envoy tells the rate limit service."""
_Value: TypeAlias = Annotated[str, Field(min_length=1, max_length=1024)]
ValueMatchType: TypeAlias = Literal["Exact", "RegularExpression", "Distinct"]


class _ValueMatch(Model):
    type: ValueMatchType = "Exact"
    """Distinct counts each value for itself."""
    value: Annotated[str, Field(max_length=1024)] | None = None
    """What to match; not with Distinct."""
    invert: Bool = False
    """Match all other values; not with Distinct."""

    @model_validator(mode="after")
    def _type_has_value(self) -> _ValueMatch:
        if self.type == "Distinct":
            if self.value is not None:
                raise refuse("value must not be set for type Distinct", "value")
            if self.invert:
                raise refuse("invert must not be set for type Distinct", "invert")
        elif self.value is None:
            raise refuse(f"type {self.type} needs value", "value")
        return self


class HeaderMatch(_ValueMatch):
    """A request header."""

    name: HeaderName
    """Name of the header."""


class QueryParamMatch(_ValueMatch):
    """A query parameter."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the parameter."""


class MethodMatch(Model):
    """A method."""

    value: HTTPMethod
    """The method."""
    invert: Bool = False
    """Match all other methods."""


class SourceMatch(Model):
    """Addresses of clients."""

    type: Literal["Exact", "Distinct"] = "Exact"
    """Exact counts the whole range together, Distinct counts each address for itself."""
    value: CIDR
    """A range of addresses."""
    invert: Bool = False
    """Match all other addresses."""


class ClaimMatch(Model):
    """A claim of a token that `jwt` of a SecurityPolicy verifies."""

    name: ObjectName
    """Name of the claim; dots lead into nested ones, as in `organization.name`."""
    provider: ObjectName | None = None
    """Name of the JWT provider whose token it is; any of those in force when absent."""
    type: Literal["Exact", "Distinct"] = "Exact"
    """Exact counts all of `values` together, Distinct counts each value for itself."""
    value_type: Literal["String", "StringArray"] = "String"
    """What the claim is; numbers are compared as they are written."""
    values: Annotated[tuple[_Value, ...], Field(max_length=128)] = ()
    """The claim must be one of these (String) or hold one of these (StringArray); not with Distinct."""
    invert: Bool = False
    """Match all other values, and requests without the claim or without a token; not with Distinct."""

    @model_validator(mode="after")
    def _type_has_values(self) -> ClaimMatch:
        if self.type == "Exact":
            if not self.values:
                raise refuse("type Exact needs values", "values")
            return self
        if self.values:
            raise refuse("values must not be set for type Distinct", "values")
        if self.invert:
            raise refuse("invert must not be set for type Distinct", "invert")
        if self.value_type != "String":
            raise refuse("type Distinct needs a claim with one value", "valueType")
        return self


class RateLimitSelectCondition(Model):
    """Which requests a rule counts; all that is set must hold."""

    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    methods: Annotated[tuple[MethodMatch, ...], Field(max_length=16)] = ()
    """One of them must match."""
    path: PathMatch | None = None
    source_cidr: SourceMatch | None = None
    query_params: Annotated[tuple[QueryParamMatch, ...], Field(max_length=16)] = ()
    claims: Annotated[tuple[ClaimMatch, ...], Field(max_length=16)] = ()
    """Not in Envoy Gateway: claims of the client's token. A request without a claim does not match."""

    @model_validator(mode="after")
    def _not_empty(self) -> RateLimitSelectCondition:
        given = (self.headers, self.methods, self.path, self.source_cidr, self.query_params, self.claims)
        if not any(given):
            raise refuse("set at least one of headers, methods, path, sourceCIDR, queryParams and claims")
        return self


class RateLimitMetadata(Model):
    """Where in the dynamic metadata of a request a value is.

    Under `envoy.filters.http.jwt_authn` are the claims of the client's token, by the name of its provider:
    `main:limits:day` is the member `day` of the claim `limits` of a token of `main`.
    """

    namespace: Annotated[str, Field(min_length=1, max_length=256, pattern=METADATA_NAMESPACE_PATTERN)]
    """The namespace; a filter's name mostly."""
    key: Annotated[str, Field(min_length=1, max_length=256, pattern=METADATA_KEY_PATTERN)]
    """The key there; colons lead into nested values."""


class RateLimitValue(Model):
    """How many requests in which time."""

    requests: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    """0 refuses every request."""
    unit: RateLimitUnit
    """The time. Week is not in Envoy Gateway."""
    from_metadata: RateLimitMetadata | None = None
    """Global limits only: where each request may bring a limit of its own, a structure of the number
    `requests_per_unit` and the text `unit` (`SECOND` to `YEAR`). `requests` and `unit` are for requests without."""


class RateLimitCostSpecifier(Model):
    """How much a request counts."""

    from_: Annotated[Literal["Number", "Metadata"], Field(alias="from")]
    """Where the number comes from."""
    number: Annotated[int, Field(strict=True, ge=0, le=MAX_COST)] | None = None
    """A fixed number; 0 only looks whether a global limit is reached. Local limits need 1 at least."""
    metadata: RateLimitMetadata | None = None
    """Where the number is, which is rounded down. Without one there, a request costs 1 and a response nothing; a local
    limit refuses what costs 0."""

    @model_validator(mode="after")
    def _source_has_value(self) -> RateLimitCostSpecifier:
        for source, field, value in (("Number", "number", self.number), ("Metadata", "metadata", self.metadata)):
            if (value is None) == (self.from_ == source):
                words = "needs" if value is None else "must not have"
                raise refuse(f"from {self.from_} {words} {field}", field)
        return self


class RateLimitCost(Model):
    """How much requests and responses count."""

    request: RateLimitCostSpecifier | None = None
    """1 when absent."""
    response: RateLimitCostSpecifier | None = None
    """Global limits only: counted when the response has been sent, so that requests after it are refused. Nothing
    when absent."""


class RateLimitRule(Model):
    """A limit, and the requests that count towards it."""

    client_selectors: Annotated[tuple[RateLimitSelectCondition, ...], Field(max_length=8)] = ()
    """Which requests count; all when empty."""
    limit: RateLimitValue
    cost: RateLimitCost | None = None
    shared: Bool = False
    """One counter for all routes that the policy is about, instead of one for each; local limits are never shared."""
    shadow_mode: Bool = False
    """Count, but let all requests pass. Envoy Gateway has it for global limits alone."""
    x_rate_limit_headers: Literal["Off", "DraftVersion03"] | None = None
    """Whether responses tell of this limit by X-RateLimit headers, and its refusals by RateLimit headers too; they do
    unless it is Off, but for limits in shadow mode. Those of local limits don't where there are global ones that do."""


class GlobalRateLimitRule(Counted, RateLimitRule):
    """A limit that all Envoys count together."""


class GlobalRateLimit(Model):
    """Limits that all Envoys count together, in the rate limit service."""

    rules: Annotated[tuple[GlobalRateLimitRule, ...], Field(max_length=128)] = ()
    """Every rule that matches a request counts it; one that is exhausted refuses it."""
    plans: RateLimitPlans | None = None
    """Not in Envoy Gateway: limits of Plans, by who calls; they count over all routes that the policy is about."""
    failure_mode: Literal["Open", "Closed"] = "Open"
    """Not in Envoy Gateway: what happens to requests while the service or its store cannot be reached."""
    local_shield: Bool = False
    """Not in Envoy Gateway: each Envoy refuses by itself, without asking the service, who asks for more than twice what
    a limit admits. Nobody is refused by it who keeps to the limit."""

    @model_validator(mode="after")
    def _not_empty(self) -> GlobalRateLimit:
        if not self.rules and self.plans is None:
            raise refuse("set rules, plans or both", "rules")
        return self


class LocalRateLimitRule(RateLimitRule):
    """A limit that each Envoy counts for itself."""


class LocalRateLimit(Model):
    """Limits that each Envoy counts for itself."""

    rules: Annotated[tuple[LocalRateLimitRule, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _no_response_cost(self) -> LocalRateLimit:
        for index, rule in enumerate(self.rules):
            if rule.cost is not None and rule.cost.response is not None:
                raise refuse("local limits have no response cost", f"rules[{index}].cost.response")
            if rule.limit.from_metadata is not None:
                raise refuse("local limits do not come from metadata", f"rules[{index}].limit.fromMetadata")
        return self


class RateLimitSpec(Model):
    """Limits of a policy."""

    type: Literal["Global", "Local"] | None = None
    """Not needed: `global`, `local` or both may be set."""
    global_: Annotated[GlobalRateLimit | None, Field(alias="global")] = None
    local: LocalRateLimit | None = None

    @model_validator(mode="after")
    def _type_has_value(self) -> RateLimitSpec:
        if self.global_ is None and self.local is None:
            raise refuse("set global, local or both")
        if (self.type == "Global" and self.global_ is None) or (self.type == "Local" and self.local is None):
            raise refuse(f"type {self.type} needs {self.type.lower()}", self.type.lower())
        return self
