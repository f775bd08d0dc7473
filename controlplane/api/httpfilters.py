"""Filters of HTTP routes: headers, redirects, rewrites, mirrors, CORS, external authorization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.marks import NotSupported
from controlplane.api.meta import BackendObjectReference, LocalObjectReference, Model
from controlplane.api.scalars import (
    URI_PATH_PATTERN,
    Bool,
    HeaderName,
    HeaderValue,
    NonNegative,
    Origin,
    Percent,
    Port,
    Positive,
    PreciseHostname,
    refuse,
    require_unique,
)

HeaderNames: TypeAlias = Annotated[tuple[HeaderName, ...], Field(max_length=64)]
CORSMethod: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]


class HTTPHeader(Model):
    """A header and its value."""

    name: HeaderName
    """Name of the header."""
    value: HeaderValue
    """Its value."""


def _check_headers(headers: tuple[HTTPHeader, ...]) -> tuple[HTTPHeader, ...]:
    require_unique(headers, lambda each: each.name, "header")
    return headers


Headers: TypeAlias = Annotated[tuple[HTTPHeader, ...], Field(max_length=16), AfterValidator(_check_headers)]


class HTTPHeaderFilter(Model):
    """Changes to headers."""

    set: Headers = ()
    """Headers whose value is replaced."""
    add: Headers = ()
    """Headers that are added to what is there."""
    remove: Annotated[tuple[HeaderName, ...], Field(max_length=16)] = ()
    """Names of headers to take away."""


class HTTPPathModifier(Model):
    """A new path, or a new start of the path."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    """Which of the two."""
    replace_full_path: Annotated[str, Field(max_length=1024)] | None = None
    """The new path."""
    replace_prefix_match: Annotated[str, Field(max_length=1024)] | None = None
    """What takes the place of the prefix that the rule matched."""

    @model_validator(mode="after")
    def _type_has_value(self) -> HTTPPathModifier:
        full = self.type == "ReplaceFullPath"
        if (self.replace_full_path is None) == full:
            raise refuse(_member("replaceFullPath", self.type, needed=full), "replaceFullPath")
        if (self.replace_prefix_match is None) != full:
            raise refuse(_member("replacePrefixMatch", self.type, needed=not full), "replacePrefixMatch")
        return self


def _member(field: str, kind: str, needed: bool) -> str:
    return f"type {kind} needs {field}" if needed else f"{field} must not be set for type {kind}"


class HTTPRequestRedirectFilter(Model):
    """Answers with a redirect."""

    scheme: Literal["http", "https"] | None = None
    """Scheme in the Location header; that of the request when absent."""
    hostname: PreciseHostname | None = None
    """Host in the Location header; that of the request when absent."""
    path: HTTPPathModifier | None = None
    port: Port | None = None
    """Port in the Location header; that of the scheme, else of the listener, when absent."""
    status_code: Literal[301, 302, 303, 307, 308] = 302
    """Status of the response."""


class HTTPURLRewriteFilter(Model):
    """Changes host or path on the way to the backend."""

    hostname: PreciseHostname | None = None
    """Host header for the backend."""
    path: HTTPPathModifier | None = None


class Fraction(Model):
    """A share of requests."""

    numerator: NonNegative
    """Requests that are meant ..."""
    denominator: Positive = 100
    """... of so many."""

    @model_validator(mode="after")
    def _at_most_one(self) -> Fraction:
        if self.numerator > self.denominator:
            raise refuse(f"must not be greater than the denominator ({self.denominator})", "numerator")
        return self


class HTTPRequestMirrorFilter(Model):
    """Sends a copy of requests elsewhere; the responses to the copy are dropped."""

    backend_ref: BackendObjectReference
    percent: Percent | None = None
    """Share of the requests to copy; all when neither this nor `fraction` is set."""
    fraction: Fraction | None = None

    @model_validator(mode="after")
    def _one_share(self) -> HTTPRequestMirrorFilter:
        if self.percent is not None and self.fraction is not None:
            raise refuse("set percent or fraction, not both", "fraction")
        return self


def check_wildcard_alone(values: tuple[str, ...]) -> tuple[str, ...]:
    """`*` stands for everything, so nothing may stand beside it."""
    if len(values) > 1 and "*" in values:
        raise refuse("'*' must be the only entry")
    return values


class HTTPCORSFilter(Model):
    """Cross-origin resource sharing: which origins may call, and how."""

    allow_origins: Annotated[tuple[Origin, ...], Field(max_length=64), AfterValidator(check_wildcard_alone)] = ()
    """Origins as `https://HOST[:PORT]`; the host may hold `*`, and `*` alone allows every origin."""
    allow_credentials: Bool = False
    """Whether requests may carry cookies and authorization."""
    allow_methods: Annotated[tuple[CORSMethod, ...], Field(max_length=9), AfterValidator(check_wildcard_alone)] = ()
    """Methods that may be used; `*` allows all."""
    allow_headers: Annotated[HeaderNames, AfterValidator(check_wildcard_alone)] = ()
    """Request headers that may be sent; `*` allows all."""
    expose_headers: HeaderNames = ()
    """Response headers that scripts may read."""
    max_age: Positive = 5
    """Seconds for which a browser may keep the answer to a preflight request."""


class GRPCAuthConfig(Model):
    """What is sent to a gRPC authorization server."""

    allowed_headers: HeaderNames = ()
    """Request headers to send; all when empty."""


class HTTPAuthConfig(Model):
    """What is sent to an HTTP authorization server, and taken from its answer."""

    path: Annotated[str, Field(max_length=1024, pattern=URI_PATH_PATTERN)] | None = None
    """Put before the path of the request."""
    allowed_headers: HeaderNames = ()
    """Request headers to send beside Host, Method, Path, Content-Length and Authorization."""
    allowed_response_headers: HeaderNames = ()
    """Response headers to copy into the request to the backend; all when empty."""


class ForwardBodyConfig(Model):
    """How much of the request's body the authorization server gets."""

    max_size: NonNegative = 0
    """Bytes; 0 sends no body."""


class HTTPExternalAuthFilter(Model):
    """Asks an authorization server about each request."""

    protocol: Literal["HTTP", "GRPC"]
    """What the server speaks."""
    backend_ref: BackendObjectReference
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    forward_body: ForwardBodyConfig | None = None

    @model_validator(mode="after")
    def _protocol_has_config(self) -> HTTPExternalAuthFilter:
        for protocol, field, value in (("GRPC", "grpc", self.grpc), ("HTTP", "http", self.http)):
            if (value is None) == (self.protocol == protocol):
                words = "needs" if value is None else "must not have"
                raise refuse(f"protocol {self.protocol} {words} {field}", field)
        return self


class HTTPRouteFilter(Model):
    """One step in handling a request or its response; `type` says which field is set."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ]
    """Which field is set."""
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    cors: HTTPCORSFilter | None = None
    external_auth: Annotated[
        HTTPExternalAuthFilter | None, NotSupported("requests of the rule are answered with 500")
    ] = None
    extension_ref: LocalObjectReference | None = None

    @model_validator(mode="after")
    def _type_has_value(self) -> HTTPRouteFilter:
        check_member(self, self.type, _MEMBERS)
        return self


_MEMBERS: Final = {
    "RequestHeaderModifier": ("request_header_modifier", "requestHeaderModifier"),
    "ResponseHeaderModifier": ("response_header_modifier", "responseHeaderModifier"),
    "RequestMirror": ("request_mirror", "requestMirror"),
    "RequestRedirect": ("request_redirect", "requestRedirect"),
    "URLRewrite": ("url_rewrite", "urlRewrite"),
    "ExtensionRef": ("extension_ref", "extensionRef"),
    "CORS": ("cors", "cors"),
    "ExternalAuth": ("external_auth", "externalAuth"),
}
_ONCE: Final = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS")


def check_member(model: Model, chosen: str, kinds: Iterable[str]) -> None:
    """Of the fields that belong to a type of filter, exactly that of the chosen type is set."""
    for kind in kinds:
        attribute, field = _MEMBERS[kind]
        if (getattr(model, attribute) is None) == (kind == chosen):
            raise refuse(_member(field, chosen, needed=kind == chosen), field)


def check_repeats(types: Sequence[str]) -> None:
    """Most types of filter may be given once."""
    for kind in _ONCE:
        if types.count(kind) > 1:
            second = types.index(kind, types.index(kind) + 1)
            raise refuse(f"filter {kind} must not be repeated", f"[{second}]")


def check_filters(filters: tuple[HTTPRouteFilter, ...]) -> tuple[HTTPRouteFilter, ...]:
    """Which filters may be repeated or combined (Gateway API: HTTPRouteRule.filters)."""
    if len(filters) < 2:
        return filters
    types = [each.type for each in filters]
    check_repeats(types)
    if "RequestRedirect" in types and "URLRewrite" in types:
        raise refuse("RequestRedirect and URLRewrite must not be combined")
    return filters
