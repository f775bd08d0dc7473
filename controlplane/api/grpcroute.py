"""GRPCRoute: which gRPC calls go to which backends."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.httpfilters import HTTPHeaderFilter, HTTPRequestMirrorFilter, check_member, check_repeats
from controlplane.api.httproute import HTTPHeaderMatch, MatchType, SessionPersistence, check_headers
from controlplane.api.marks import NotSupported
from controlplane.api.meta import BackendRef, LocalObjectReference, Model, Resource, RouteSpec, check_rule_names
from controlplane.api.scalars import Hostname, SectionName, matches_pattern, refuse

_SERVICE: Final = r"\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*"
_METHOD: Final = "[A-Za-z_][A-Za-z_0-9]*"


class GRPCMethodMatch(Model):
    """A gRPC service, method, or both."""

    type: MatchType = "Exact"
    service: Annotated[str, Field(max_length=1024)] | None = None
    """Full name of the service, such as `shop.v1.Cart`; every service when absent."""
    method: Annotated[str, Field(max_length=1024)] | None = None
    """Name of the method; every method when absent."""

    @model_validator(mode="after")
    def _names_are_valid(self) -> GRPCMethodMatch:
        if not self.service and not self.method:
            raise refuse("set service, method or both")
        if self.type == "Exact":
            if self.service and not matches_pattern(_SERVICE, self.service):
                raise refuse(f"expected the full name of a gRPC service; got {self.service!r}", "service")
            if self.method and not matches_pattern(_METHOD, self.method):
                raise refuse(f"expected the name of a gRPC method; got {self.method!r}", "method")
        return self


class GRPCRouteMatch(Model):
    """Conditions on a call that must all hold."""

    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16), AfterValidator(check_headers)] = ()


class GRPCRouteFilter(Model):
    """One step in handling a call; `type` says which field is set."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    extension_ref: LocalObjectReference | None = None

    @model_validator(mode="after")
    def _type_has_value(self) -> GRPCRouteFilter:
        check_member(
            self, self.type, ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef")
        )
        return self


def _check_filters(filters: tuple[GRPCRouteFilter, ...]) -> tuple[GRPCRouteFilter, ...]:
    check_repeats([each.type for each in filters])
    return filters


Filters: TypeAlias = Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16), AfterValidator(_check_filters)]


class GRPCBackendRef(BackendRef):
    """A backend, its share of the calls, and filters for that share."""

    filters: Filters = ()


class GRPCRouteRule(Model):
    """What happens to calls that satisfy any of the matches."""

    name: SectionName | None = None
    matches: Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64)] = ()
    """Alternatives; every call when empty."""
    filters: Filters = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] = ()
    session_persistence: Annotated[SessionPersistence | None, NotSupported("calls are spread over all endpoints")] = (
        None
    )


def _check_rules(rules: tuple[GRPCRouteRule, ...]) -> tuple[GRPCRouteRule, ...]:
    if sum(len(rule.matches) for rule in rules) > 128:
        raise refuse("a route may have at most 128 matches over all its rules")
    check_rule_names(rules)
    return rules


class GRPCRouteSpec(RouteSpec):
    """Where a route attaches, for which hosts, and its rules."""

    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    """Hosts to match; those of the listener when empty."""
    rules: Annotated[tuple[GRPCRouteRule, ...], Field(max_length=16), AfterValidator(_check_rules)] = ()


class GRPCRoute(Resource):
    """Rules that send gRPC calls to backends."""

    kind: Literal["GRPCRoute"] = "GRPCRoute"
    spec: GRPCRouteSpec
