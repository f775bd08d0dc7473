"""GRPCRoute rules with their references resolved, whatever they are attached to (Gateway API: GRPCRouteRule)."""

from __future__ import annotations

import re

from controlplane.api.grpcroute import GRPCMethodMatch, GRPCRoute, GRPCRouteMatch, GRPCRouteRule
from controlplane.api.meta import ObjectKey
from controlplane.compile import rules
from controlplane.compile.compiled import CompiledRoute, weighed
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import Action, Forward, Match, PathMatch, Respond, Rule

_EVERY_CALL = Match(PathMatch("PathPrefix", "/"), call=(0, 0))
_ANY_NAME = "[^/]+"
# What Envoy makes the gRPC status UNAVAILABLE of.
_UNAVAILABLE = Respond(503)


def compile_route(view: View, route: GRPCRoute) -> CompiledRoute:
    """Compiles all rules of a route; a reference that cannot be resolved answers UNAVAILABLE and is a fault."""
    faults: list[Condition] = []
    names = rules.names((rule.name, tuple(_match(match) for match in rule.matches)) for rule in route.spec.rules)
    compiled = tuple(
        _rule(view, route.key, names[index], rule, f"spec.rules[{index}]", faults)
        for index, rule in enumerate(route.spec.rules)
    )
    return CompiledRoute(compiled, weighed(faults, rules=len(compiled)))


def _rule(view: View, source: ObjectKey, name: str, rule: GRPCRouteRule, field: str, faults: list[Condition]) -> Rule:
    filters = {each.type: each for each in rule.filters}
    request = filters.get("RequestHeaderModifier")
    response = filters.get("ResponseHeaderModifier")
    return Rule(
        name=name,
        matches=tuple(_match(match) for match in rule.matches) or (_EVERY_CALL,),
        action=_action(view, source, rule, field, faults),
        request_headers=rules.header_edit(request.request_header_modifier if request else None),
        response_headers=rules.header_edit(response.response_header_modifier if response else None),
    )


def _action(view: View, source: ObjectKey, rule: GRPCRouteRule, field: str, faults: list[Condition]) -> Action:
    for index, each in enumerate(rule.filters):
        if each.type == "ExtensionRef":
            message = "filters of type ExtensionRef are not supported yet; calls are answered with UNAVAILABLE"
            faults.append(false("Accepted", "UnsupportedValue", message, f"{field}.filters[{index}].type"))
            return _UNAVAILABLE
    backends = tuple(
        rules.backend(view, source, ref, f"{field}.backendRefs[{index}]", faults, grpc=True)
        for index, ref in enumerate(rule.backend_refs)
    )
    weighted = tuple(backend for backend in backends if backend.weight)
    if not weighted:
        return _UNAVAILABLE
    mirrors = rules.mirrors(view, source, rule.filters, f"{field}.filters", faults, grpc=True)
    return Forward(backends=weighted, mirrors=mirrors, grpc=True)


def _match(match: GRPCRouteMatch) -> Match:
    headers = rules.first_by_name((h.name.lower(), h.value, h.type == "RegularExpression") for h in match.headers)
    method = match.method
    if method is None:
        return Match(_EVERY_CALL.path, headers=headers, call=_EVERY_CALL.call)
    asked = (len(method.service or ""), len(method.method or ""))
    return Match(_path(method), headers=headers, call=asked)


def _path(asked: GRPCMethodMatch) -> PathMatch:
    """Returns the path of the calls that are asked for: `/SERVICE/METHOD` (gRPC over HTTP/2: Path)."""
    if asked.type == "Exact" and asked.service:
        if asked.method:
            return PathMatch("Exact", f"/{asked.service}/{asked.method}")
        return PathMatch("PathPrefix", f"/{asked.service}")
    service, method = (_pattern(asked.type, name) for name in (asked.service, asked.method))
    return PathMatch("RegularExpression", f"/{service}/{method}")


def _pattern(type_: str, name: str | None) -> str:
    if not name:
        return _ANY_NAME
    return re.escape(name) if type_ == "Exact" else f"(?:{name})"
