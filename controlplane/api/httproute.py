"""HTTPRoute: which requests go to which backends."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.httpfilters import HTTPRouteFilter, check_filters
from controlplane.api.marks import NotSupported
from controlplane.api.meta import BackendRef, Model, Resource, RouteSpec, check_rule_names
from controlplane.api.scalars import (
    Duration,
    HeaderName,
    HeaderValue,
    Hostname,
    NonNegative,
    SectionName,
    parse_duration,
    refuse,
    require_unique,
)
from controlplane.api.uripath import check_path

HTTPMethod: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
MatchType: TypeAlias = Literal["Exact", "RegularExpression"]
Filters: TypeAlias = Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16), AfterValidator(check_filters)]


class HTTPPathMatch(Model):
    """How the path of a request must look; PathPrefix compares whole elements between slashes."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    """How the value is compared."""
    value: Annotated[str, Field(max_length=1024)] = "/"
    """The path, or a regular expression (RE2) that must match all of it."""

    @model_validator(mode="after")
    def _value_is_path(self) -> HTTPPathMatch:
        if self.type != "RegularExpression":
            check_path(self.value)
        return self


class HTTPHeaderMatch(Model):
    """A request header to match; names are case-insensitive."""

    type: MatchType = "Exact"
    """How the value is compared."""
    name: HeaderName
    """Name of the header, in any case."""
    value: HeaderValue
    """The value, or a regular expression (RE2) that must match all of it."""


class HTTPQueryParamMatch(Model):
    """A query parameter to match; names are case-sensitive."""

    type: MatchType = "Exact"
    """How the value is compared."""
    name: HeaderName
    """Name of the parameter."""
    value: Annotated[str, Field(min_length=1, max_length=1024)]
    """The value, or a regular expression (RE2) that must match all of it."""


def check_headers(headers: tuple[HTTPHeaderMatch, ...]) -> tuple[HTTPHeaderMatch, ...]:
    """Each header is matched once."""
    if len(headers) > 1:
        require_unique(headers, lambda each: each.name, "header")
    return headers


def _check_params(params: tuple[HTTPQueryParamMatch, ...]) -> tuple[HTTPQueryParamMatch, ...]:
    if len(params) > 1:
        require_unique(params, lambda each: each.name, "query parameter")
    return params


class HTTPRouteMatch(Model):
    """Conditions on a request that must all hold."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16), AfterValidator(check_headers)] = ()
    query_params: Annotated[tuple[HTTPQueryParamMatch, ...], Field(max_length=16), AfterValidator(_check_params)] = ()
    method: HTTPMethod | None = None
    """Method of the request; any when absent."""


EVERY_REQUEST: Final = (HTTPRouteMatch(),)


def _every_request_if_empty(matches: tuple[HTTPRouteMatch, ...]) -> tuple[HTTPRouteMatch, ...]:
    return matches or EVERY_REQUEST


class HTTPBackendRef(BackendRef):
    """A backend, its share of the requests, and filters for that share."""

    filters: Filters = ()


class HTTPRouteTimeouts(Model):
    """Limits of time; `0s` means none."""

    request: Duration | None = None
    """From the first byte of the request to the end of the response, retries included."""
    backend_request: Duration | None = None
    """For each try of a backend; not longer than `request`."""

    @model_validator(mode="after")
    def _backend_within_request(self) -> HTTPRouteTimeouts:
        if self.request is not None and self.backend_request is not None:
            request = parse_duration(self.request)
            if request and parse_duration(self.backend_request) > request:
                raise refuse(f"must not be longer than request ({self.request})", "backendRequest")
        return self


StatusCode: TypeAlias = Annotated[int, Field(strict=True, ge=400, le=599)]


class HTTPRouteRetry(Model):
    """When and how often a request is sent again."""

    codes: tuple[StatusCode, ...] = ()
    """Response codes to retry on."""
    attempts: NonNegative | None = None
    """Tries beyond the first; 0 disables retries."""
    backoff: Duration | None = None
    """Base interval between tries."""


class CookieConfig(Model):
    """How long the cookie of a session lives."""

    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Model):
    """Requests of one session go to one endpoint."""

    session_name: Annotated[str, Field(max_length=128)] | None = None
    absolute_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None

    @model_validator(mode="after")
    def _permanent_has_timeout(self) -> SessionPersistence:
        permanent = self.cookie_config is not None and self.cookie_config.lifetime_type == "Permanent"
        if permanent and self.absolute_timeout is None:
            raise refuse("a Permanent cookie needs absoluteTimeout", "absoluteTimeout")
        return self


class HTTPRouteRule(Model):
    """What happens to requests that satisfy any of the matches."""

    name: SectionName | None = None
    """Name of the rule, which policies can refer to as `sectionName`."""
    matches: Annotated[tuple[HTTPRouteMatch, ...], Field(max_length=64), AfterValidator(_every_request_if_empty)] = (
        EVERY_REQUEST
    )
    """Alternatives; every request when empty."""
    filters: Filters = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: Annotated[
        SessionPersistence | None, NotSupported("requests are spread over all endpoints")
    ] = None

    @model_validator(mode="after")
    def _filters_fit(self) -> HTTPRouteRule:
        if self.filters:
            self._check_filters(self.filters, "filters")
            if self.backend_refs and any(each.request_redirect for each in self.filters):
                raise refuse("a rule with a RequestRedirect filter must not have backendRefs", "backendRefs")
        for index, backend in enumerate(self.backend_refs):
            if backend.filters:
                self._check_filters(backend.filters, f"backendRefs[{index}].filters")
        return self

    def _check_filters(self, filters: tuple[HTTPRouteFilter, ...], field: str) -> None:
        one_prefix = len(self.matches) == 1 and self.matches[0].path.type == "PathPrefix"
        for index, each in enumerate(filters):
            changes = each.request_redirect or each.url_rewrite
            if changes is None or changes.path is None or one_prefix:
                continue
            if changes.path.type == "ReplacePrefixMatch":
                message = "replacePrefixMatch needs a rule with exactly one match, of type PathPrefix"
                raise refuse(message, f"{field}[{index}]")


EVERYTHING: Final = (HTTPRouteRule(),)


def _check_rules(rules: tuple[HTTPRouteRule, ...]) -> tuple[HTTPRouteRule, ...]:
    if len(rules) > 1:
        if sum(len(rule.matches) for rule in rules) > 128:
            raise refuse("a route may have at most 128 matches over all its rules")
        check_rule_names(rules)
    return rules


class HTTPRouteSpec(RouteSpec):
    """Where a route attaches, for which hosts, and its rules."""

    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    """Hosts to match; those of the listener when empty."""
    rules: Annotated[tuple[HTTPRouteRule, ...], Field(max_length=16), AfterValidator(_check_rules)] = EVERYTHING


class HTTPRoute(Resource):
    """Rules that send HTTP requests to backends, or answer them."""

    kind: Literal["HTTPRoute"] = "HTTPRoute"
    spec: HTTPRouteSpec
