"""HTTPRouteFilter: steps that routes refer to with a filter of type ExtensionRef."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controlplane.api.httpfilters import HTTPHeaderFilter
from controlplane.api.marks import NotSupported
from controlplane.api.meta import LocalObjectReference, Model, Resource, SecretObjectReference
from controlplane.api.policy import LaterList
from controlplane.api.scalars import Bool, HeaderName, PreciseHostname, refuse


class ReplaceRegexMatch(Model):
    """A regular expression on the path, and what takes the place of what it finds."""

    pattern: Annotated[str, Field(min_length=1, max_length=1024)]
    """RE2 syntax."""
    substitution: Annotated[str, Field(max_length=1024)]
    """May refer to groups as `\\1`."""


class PathModifier(Model):
    """A new path."""

    type: Literal["ReplaceRegexMatch"]
    replace_regex_match: ReplaceRegexMatch


class HostnameModifier(Model):
    """A new Host header."""

    type: Literal["Header", "Backend", "SetHostname"]
    header: HeaderName | None = None
    """Header that holds the new host; with type Header."""
    set_hostname: PreciseHostname | None = None

    @model_validator(mode="after")
    def _type_has_value(self) -> HostnameModifier:
        if (self.header is None) == (self.type == "Header"):
            words = "needs" if self.header is None else "must not have"
            raise refuse(f"type {self.type} {words} header", "header")
        return self


class URLRewrite(Model):
    """Changes host or path on the way to the backend."""

    hostname: Annotated[HostnameModifier | None, NotSupported("use a filter of type URLRewrite")] = None
    path: PathModifier | None = None
    appended_headers: LaterList = None


class ResponseBody(Model):
    """The body of a response, written here or kept in a ConfigMap."""

    type: Literal["Inline", "ValueRef"] = "Inline"
    inline: Annotated[str, Field(max_length=65_536)] | None = None
    value_ref: LocalObjectReference | None = None

    @model_validator(mode="after")
    def _type_has_value(self) -> ResponseBody:
        for kind, field, value in (("Inline", "inline", self.inline), ("ValueRef", "valueRef", self.value_ref)):
            if (value is None) == (self.type == kind):
                words = "needs" if value is None else "must not have"
                raise refuse(f"type {self.type} {words} {field}", field)
        return self


class DirectResponse(Model):
    """Answers without a backend."""

    content_type: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    body: ResponseBody | None = None
    status_code: Annotated[int, Field(strict=True, ge=200, le=599)] = 200
    response_header_modifier: HTTPHeaderFilter | None = None


class InjectedCredential(Model):
    """A credential in a Secret."""

    value_ref: SecretObjectReference
    """A Secret with the whole value of the header under `credential`."""


class CredentialInjection(Model):
    """Adds a credential to requests on the way to the backend."""

    header: HeaderName = "Authorization"
    overwrite: Bool = False
    credential: InjectedCredential


class HTTPRouteFilterSpec(Model):
    """One step."""

    url_rewrite: URLRewrite | None = None
    direct_response: Annotated[DirectResponse | None, NotSupported()] = None
    credential_injection: Annotated[CredentialInjection | None, NotSupported()] = None


class HTTPRouteFilter(Resource):
    """A step in handling requests that routes refer to."""

    kind: Literal["HTTPRouteFilter"] = "HTTPRouteFilter"
    spec: HTTPRouteFilterSpec
