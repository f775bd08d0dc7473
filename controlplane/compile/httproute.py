"""HTTPRoute rules with their references resolved, whatever they are attached to (Gateway API: HTTPRouteRule)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from controlplane.api.httpfilters import (
    HTTPCORSFilter,
    HTTPHeaderFilter,
    HTTPPathModifier,
    HTTPRequestMirrorFilter,
    HTTPRequestRedirectFilter,
)
from controlplane.api.httproute import HTTPBackendRef, HTTPRoute, HTTPRouteMatch, HTTPRouteRule
from controlplane.api.meta import ObjectKey
from controlplane.api.scalars import parse_duration
from controlplane.compile.backends import resolve
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import (
    Action,
    Cors,
    Forward,
    HeaderEdit,
    Match,
    Mirror,
    PathMatch,
    PathRewrite,
    Redirect,
    Respond,
    Retry,
    Rule,
    ValueMatch,
    WeightedBackend,
)

_ROOT = Match(PathMatch("PathPrefix", "/"))


def compile_route(view: View, route: HTTPRoute) -> CompiledRoute:
    """Compiles all rules of a route; a reference that cannot be resolved answers with 500 and is a fault."""
    faults: list[Condition] = []
    names = _rule_names(route)
    rules = tuple(
        _rule(view, route.key, names[index], rule, f"spec.rules[{index}]", faults)
        for index, rule in enumerate(route.spec.rules)
    )
    return CompiledRoute(rules, tuple(faults))


def _rule(view: View, source: ObjectKey, name: str, rule: HTTPRouteRule, field: str, faults: list[Condition]) -> Rule:
    filters = {each.type: each for each in rule.filters}
    request = filters.get("RequestHeaderModifier")
    response = filters.get("ResponseHeaderModifier")
    cors = filters.get("CORS")
    return Rule(
        name=name,
        matches=tuple(_match(match) for match in rule.matches) or (_ROOT,),
        action=_action(view, source, rule, field, faults),
        request_headers=_header_edit(request.request_header_modifier if request else None),
        response_headers=_header_edit(response.response_header_modifier if response else None),
        cors=_cors(cors.cors) if cors and cors.cors else None,
    )


def _action(view: View, source: ObjectKey, rule: HTTPRouteRule, field: str, faults: list[Condition]) -> Action:
    for index, each in enumerate(rule.filters):
        if each.type in ("ExtensionRef", "ExternalAuth"):
            message = f"filters of type {each.type} are not supported yet; the rule answers with 500"
            faults.append(false("Accepted", "UnsupportedValue", message, f"{field}.filters[{index}].type"))
            return Respond(500)
    if rule.session_persistence is not None:
        message = "not supported yet; requests are spread over all endpoints"
        faults.append(false("Accepted", "UnsupportedValue", message, f"{field}.sessionPersistence"))
    redirect = next((f.request_redirect for f in rule.filters if f.request_redirect), None)
    if redirect is not None:
        return _redirect(redirect)
    return _forward(view, source, rule, field, faults)


def _forward(view: View, source: ObjectKey, rule: HTTPRouteRule, field: str, faults: list[Condition]) -> Action:
    backends = tuple(
        _backend(view, source, ref, f"{field}.backendRefs[{index}]", faults)
        for index, ref in enumerate(rule.backend_refs)
    )
    if not any(backend.weight for backend in backends):
        return Respond(500)
    rewrite = next((f.url_rewrite for f in rule.filters if f.url_rewrite), None)
    mirrors = (
        _mirror(view, source, each.request_mirror, f"{field}.filters[{index}].requestMirror", faults)
        for index, each in enumerate(rule.filters)
        if each.request_mirror is not None
    )
    timeouts = rule.timeouts
    return Forward(
        backends=tuple(backend for backend in backends if backend.weight),
        hostname=rewrite.hostname if rewrite else None,
        path=_path_rewrite(rewrite.path) if rewrite and rewrite.path else None,
        mirrors=tuple(mirror for mirror in mirrors if mirror is not None),
        request_timeout_s=_seconds(timeouts.request if timeouts else None),
        backend_timeout_s=_seconds(timeouts.backend_request if timeouts else None),
        retry=_retry(rule),
    )


def _backend(
    view: View, source: ObjectKey, ref: HTTPBackendRef, field: str, faults: list[Condition]
) -> WeightedBackend:
    resolved = resolve(view, ref, source=source, field=field)
    if resolved.fault is not None:
        faults.append(resolved.fault)
    request, response = HeaderEdit(), HeaderEdit()
    for index, each in enumerate(ref.filters):
        if each.type == "RequestHeaderModifier":
            request = _header_edit(each.request_header_modifier)
        elif each.type == "ResponseHeaderModifier":
            response = _header_edit(each.response_header_modifier)
        else:
            message = f"filters of type {each.type} are not supported on a backendRef; it answers with 500"
            faults.append(false("Accepted", "UnsupportedValue", message, f"{field}.filters[{index}].type"))
            return WeightedBackend(None, ref.weight)
    return WeightedBackend(resolved.cluster, ref.weight, request, response)


def _mirror(
    view: View, source: ObjectKey, mirror: HTTPRequestMirrorFilter, field: str, faults: list[Condition]
) -> Mirror | None:
    resolved = resolve(view, mirror.backend_ref, source=source, field=f"{field}.backendRef")
    if resolved.fault is not None:
        faults.append(resolved.fault)
    if resolved.cluster is None:
        return None
    if mirror.fraction is not None:
        return Mirror(resolved.cluster, mirror.fraction.numerator, mirror.fraction.denominator)
    return Mirror(resolved.cluster, 100 if mirror.percent is None else mirror.percent, 100)


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


def _header_edit(edit: HTTPHeaderFilter | None) -> HeaderEdit:
    if edit is None:
        return HeaderEdit()
    return HeaderEdit(
        set=tuple((h.name, h.value) for h in edit.set),
        add=tuple((h.name, h.value) for h in edit.add),
        remove=tuple(edit.remove),
    )


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
    return Match(
        path=PathMatch(path.type, value),
        method=match.method,
        headers=_first_by_name((h.name.lower(), h.value, h.type == "RegularExpression") for h in match.headers),
        query=_first_by_name((q.name, q.value, q.type == "RegularExpression") for q in match.query_params),
    )


def _first_by_name(values: Iterable[tuple[str, str, bool]]) -> tuple[ValueMatch, ...]:
    """Of several entries for one name only the first counts (Gateway API: HTTPHeaderMatch.name)."""
    first: dict[str, ValueMatch] = {}
    for name, value, regex in values:
        first.setdefault(name, ValueMatch(name, value, regex))
    return tuple(first[name] for name in sorted(first))


def _rule_names(route: HTTPRoute) -> list[str]:
    """Names rules by what they match, so that reordering them renames nothing."""
    names: list[str] = []
    for rule in route.spec.rules:
        name = rule.name
        if name is None:
            text = repr(tuple(_match(match) for match in rule.matches)).encode()
            name = hashlib.blake2b(text, digest_size=4).hexdigest()
        while name in names:
            name += "+"
        names.append(name)
    return names


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else parse_duration(duration).total_seconds()
