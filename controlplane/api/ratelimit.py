"""Rate limits: how many requests which clients may send."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from controlplane.api.authorization import PathMatch
from controlplane.api.counting import Counted, RateLimitUnit
from controlplane.api.httproute import HTTPMethod
from controlplane.api.marks import NotSupported
from controlplane.api.meta import Model
from controlplane.api.policy import CIDR, LaterMapping, LaterText
from controlplane.api.scalars import Bool, HeaderName, NonNegative, refuse

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
    invert: Annotated[Bool | None, NotSupported()] = None
    """Match all other addresses."""


class RateLimitSelectCondition(Model):
    """Which requests a rule counts; all that is set must hold."""

    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    methods: Annotated[tuple[MethodMatch, ...], Field(max_length=16)] = ()
    """One of them must match."""
    path: PathMatch | None = None
    source_cidr: SourceMatch | None = None
    query_params: Annotated[tuple[QueryParamMatch, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> RateLimitSelectCondition:
        if not (self.headers or self.methods or self.path or self.source_cidr or self.query_params):
            raise refuse("set at least one of headers, methods, path, sourceCIDR and queryParams")
        return self


class RateLimitValue(Model):
    """How many requests in which time."""

    requests: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    """0 refuses every request."""
    unit: RateLimitUnit
    """The time. Week is not in Envoy Gateway."""
    from_metadata: LaterMapping = None


class RateLimitCostMetadata(Model):
    """Where in the dynamic metadata of a request a number is."""

    namespace: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]


class RateLimitCostSpecifier(Model):
    """How much a request counts."""

    from_: Annotated[Literal["Number", "Metadata"], Field(alias="from")]
    """Where the number comes from."""
    number: NonNegative | None = None
    """A fixed number; 0 only looks whether the limit is reached."""
    metadata: Annotated[RateLimitCostMetadata | None, NotSupported("use from: Number")] = None

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
    response: Annotated[RateLimitCostSpecifier | None, NotSupported()] = None
    """Counted when the response is sent; 0 when absent."""


class RateLimitRule(Model):
    """A limit, and the requests that count towards it."""

    client_selectors: Annotated[tuple[RateLimitSelectCondition, ...], Field(max_length=8)] = ()
    """Which requests count; all when empty."""
    limit: RateLimitValue
    cost: RateLimitCost | None = None
    shared: Bool = False
    """One counter for all routes that the policy is about, instead of one for each; local limits are never shared."""
    x_rate_limit_headers: LaterText = None


class GlobalRateLimitRule(Counted, RateLimitRule):
    """A limit that all Envoys count together."""

    shadow_mode: Bool = False
    """Count, but let all requests pass."""


class GlobalRateLimit(Model):
    """Limits that all Envoys count together, in the rate limit service."""

    rules: Annotated[tuple[GlobalRateLimitRule, ...], Field(min_length=1, max_length=128)]
    """Every rule that matches a request counts it; one that is exhausted refuses it."""
    failure_mode: Literal["Open", "Closed"] = "Open"
    """Not in Envoy Gateway: what happens to requests while the service or its store cannot be reached."""


class LocalRateLimitRule(RateLimitRule):
    """A limit that each Envoy counts for itself."""

    shadow_mode: Annotated[Bool | None, NotSupported("only global limits can run in shadow")] = None


class LocalRateLimit(Model):
    """Limits that each Envoy counts for itself."""

    rules: Annotated[tuple[LocalRateLimitRule, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _no_response_cost(self) -> LocalRateLimit:
        for index, rule in enumerate(self.rules):
            if rule.cost is not None and rule.cost.response is not None:
                raise refuse("local limits have no response cost", f"rules[{index}].cost.response")
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
