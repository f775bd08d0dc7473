"""HTTPRoute rules with their references resolved, whatever they are attached to (Gateway API: HTTPRouteRule)."""

from __future__ import annotations

from dataclasses import replace

from controlplane.api.httpfilters import (
    HTTPCORSFilter,
    HTTPPathModifier,
    HTTPRequestRedirectFilter,
)
from controlplane.api.httproute import HTTPRoute, HTTPRouteMatch, HTTPRouteRule
from controlplane.api.meta import ObjectKey
from controlplane.api.scalars import parse_duration
from controlplane.compile import rules
from controlplane.compile.compiled import CompiledRoute, weighed
from controlplane.compile.hints import Hints, hints
from controlplane.compile.httproutefilter import path_rewrite
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import (
    Action,
    Cors,
    Forward,
    Match,
    PathMatch,
    PathRewrite,
    Redirect,
    Respond,
    Retry,
    Rule,
)

_ROOT = Match(PathMatch("PathPrefix", "/"))


def compile_route(view: View, route: HTTPRoute) -> CompiledRoute:
    """Compiles all rules of a route; a reference that cannot be resolved answers with 500 and is a fault."""
    faults: list[Condition] = []
    asked = hints(route.metadata.annotations)
    matches = [tuple(map(_match, rule.matches)) for rule in route.spec.rules]
    names = rules.names(zip((rule.name for rule in route.spec.rules), matches, strict=True))
    key = route.key
    compiled = tuple(
        _rule(view, key, names[index], matches[index] or (_ROOT,), rule, f"spec.rules[{index}]", faults, asked)
        for index, rule in enumerate(route.spec.rules)
    )
    return CompiledRoute(compiled, weighed(faults, rules=len(compiled)))


def _rule(
    view: View,
    source: ObjectKey,
    name: str,
    matches: tuple[Match, ...],
    rule: HTTPRouteRule,
    field: str,
    faults: list[Condition],
    asked: Hints,
) -> Rule:
    if not rule.filters:
        return Rule(name, matches, _action(view, source, rule, field, faults, asked))
    filters = {each.type: each for each in rule.filters}
    request = filters.get("RequestHeaderModifier")
    response = filters.get("ResponseHeaderModifier")
    cors = filters.get("CORS")
    return Rule(
        name=name,
        matches=matches,
        action=_action(view, source, rule, field, faults, asked),
        request_headers=rules.header_edit(request.request_header_modifier if request else None),
        response_headers=rules.header_edit(response.response_header_modifier if response else None),
        cors=_cors(cors.cors) if cors and cors.cors else None,
    )


def _action(
    view: View, source: ObjectKey, rule: HTTPRouteRule, field: str, faults: list[Condition], asked: Hints
) -> Action:
    extension: PathRewrite | None = None
    for index, each in enumerate(rule.filters):
        if each.type == "ExternalAuth":
            message = f"filters of type {each.type} are not supported yet; the rule answers with 500"
            faults.append(false("Accepted", "UnsupportedValue", message, f"{field}.filters[{index}].externalAuth"))
            return Respond(500)
        if each.extension_ref is not None:
            found = path_rewrite(view, source.namespace, each.extension_ref, f"{field}.filters[{index}].extensionRef")
            if isinstance(found, Condition):
                faults.append(found)
                return Respond(500)
            extension = found
    redirect = next((f.request_redirect for f in rule.filters if f.request_redirect), None)
    if redirect is not None:
        return _redirect(redirect)
    forward = _forward(view, source, rule, field, faults, asked)
    return replace(forward, path=extension) if extension is not None and isinstance(forward, Forward) else forward


def _forward(
    view: View, source: ObjectKey, rule: HTTPRouteRule, field: str, faults: list[Condition], asked: Hints
) -> Action:
    backends = tuple(
        rules.backend(view, source, ref, f"{field}.backendRefs[{index}]", faults, hints=asked)
        for index, ref in enumerate(rule.backend_refs)
    )
    if not any(backend.weight for backend in backends):
        return Respond(500)
    rewrite = next((f.url_rewrite for f in rule.filters if f.url_rewrite), None)
    mirrors = rules.mirrors(view, source, rule.filters, f"{field}.filters", faults)
    timeouts = rule.timeouts
    return Forward(
        backends=tuple(backend for backend in backends if backend.weight),
        hostname=rewrite.hostname if rewrite else None,
        path=_path_rewrite(rewrite.path) if rewrite and rewrite.path else None,
        mirrors=mirrors,
        request_timeout_s=_seconds(timeouts.request if timeouts else None),
        backend_timeout_s=_seconds(timeouts.backend_request if timeouts else None),
        retry=_retry(rule),
        idle_timeout_s=asked.idle_s,
    )


def _redirect(redirect: HTTPRequestRedirectFilter) -> Redirect:
    return Redirect(
        status=redirect.status_code,
        scheme=redirect.scheme,
        hostname=redirect.hostname,
        path=_path_rewrite(redirect.path) if redirect.path else None,
        port=redirect.port,
    )


def _path_rewrite(path: HTTPPathModifier) -> PathRewrite:
    value = path.replace_full_path if path.type == "ReplaceFullPath" else path.replace_prefix_match
    return PathRewrite(path.type, value or "/")


def _cors(cors: HTTPCORSFilter) -> Cors:
    return Cors(
        origins=tuple(cors.allow_origins),
        methods=tuple(cors.allow_methods),
        headers=tuple(cors.allow_headers),
        expose=tuple(cors.expose_headers),
        max_age_s=cors.max_age,
        credentials=bool(cors.allow_credentials),
    )


def _retry(rule: HTTPRouteRule) -> Retry | None:
    if rule.retry is None:
        return None
    attempts = 1 if rule.retry.attempts is None else rule.retry.attempts
    return Retry(tuple(rule.retry.codes), attempts, _seconds(rule.retry.backoff))


def _match(match: HTTPRouteMatch) -> Match:
    path = match.path
    value = path.value
    if path.type == "PathPrefix" and value != "/":
        value = value.rstrip("/") or "/"
    if not (match.headers or match.query_params):
        return Match(PathMatch(path.type, value), match.method)
    return Match(
        path=PathMatch(path.type, value),
        method=match.method,
        headers=rules.first_by_name((h.name.lower(), h.value, h.type == "RegularExpression") for h in match.headers),
        query=rules.first_by_name((q.name, q.value, q.type == "RegularExpression") for q in match.query_params),
    )


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else parse_duration(duration).total_seconds()
