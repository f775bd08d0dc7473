"""From what is sent to why a request goes where it goes: listener, virtual host, rule, filters, policies, backends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile.policies import Merged
from controlplane.conditions import Condition
from controlplane.explain import listening
from controlplane.explain.candidates import judge, nearest
from controlplane.explain.filters import filters, settings
from controlplane.explain.misses import misses
from controlplane.explain.model import Explanation, Host, Listener, Outcome
from controlplane.explain.outcome import outcome
from controlplane.explain.quotas import quotas
from controlplane.explain.request import Request, Seen, seen
from controlplane.explain.sources import Locate, unlocated
from controlplane.pipeline import Pipeline
from controlplane.pipeline.http import Entry, Ranked
from controlplane.pipeline.policies import Place, is_policy
from controlplane.slices import Steps, finish

_MOST = 5
"""Policies without effect that are told."""


def explain(
    pipeline: Pipeline,
    request: Request,
    *,
    locate: Locate = unlocated,
    gateway: str | None = None,
    listener: str | None = None,
    most: int = 20,
) -> Explanation:
    """Explains a request on a pipeline that is stable; `most` bounds the candidates that are told besides the chosen.

    `gateway` is NAMESPACE/NAME, `listener` the name of one of its listeners; the URL tells them if nobody does.
    """
    return finish(explaining(pipeline, request, locate=locate, gateway=gateway, listener=listener, most=most))


def explaining(
    pipeline: Pipeline,
    request: Request,
    *,
    locate: Locate = unlocated,
    gateway: str | None = None,
    listener: str | None = None,
    most: int = 20,
) -> Steps[Explanation]:
    """Does the same, and may be interrupted: for a pipeline that serves."""
    shown = f"{request.method} {request.url}"
    found, known = listening.ports(pipeline, request, gateway=gateway, listener=listener)
    if not found:
        what = f"listener {listener}" if listener is not None else f"port {request.port}"
        of = f" of Gateway {gateway}" if gateway is not None else ""
        words = f"nobody listens on {what}{of}; there are the ports: {known or 'none'}"
        return Explanation(shown, Outcome("unreachable", words))
    if len(found) > 1:
        names = ", ".join(f"{each.gateway.namespace}/{each.gateway.name}" for each in found)
        words = f"several Gateways may be meant ({names}): say which by --gateway"
        return Explanation(shown, Outcome("ambiguous", words))
    return (yield from _on_port(pipeline, request, found[0], shown, locate, most))


def _on_port(
    pipeline: Pipeline, request: Request, port: listening.Port, shown: str, locate: Locate, most: int
) -> Steps[Explanation]:
    chain = listening.chain(port.listener, request)
    tls = port.listener.tls
    if tls != (request.scheme == "https"):
        speaks = "TLS alone" if tls else "no TLS"
        outcome_ = Outcome("unreachable", f"port {port.listener.port} speaks {speaks}, and the URL is {request.scheme}")
    elif chain is None:
        name = request.server_name or "no name (the URL has an address)"
        words = f"the connection is closed: no listener of the port is for {name}; {listening.names(port.listener)}"
        outcome_ = Outcome("unreachable", words)
    elif isinstance(chain, ir.StreamChain):
        to = ", ".join(str(each.cluster or "no backend") for each in chain.backends) or "nobody"
        outcome_ = Outcome("passed on", f"the connection is passed on as it is, to {to}, by {chain.origin or 'none'}")
    else:
        return (yield from _on_chain(pipeline, request, port, chain, shown, locate, most))
    return Explanation(shown, outcome_, _bare_listener(port, locate))


def _bare_listener(port: listening.Port, locate: Locate) -> Listener:
    name, protocol = f"{port.gateway.namespace}/{port.gateway.name}", "TLS" if port.listener.tls else "TCP"
    return Listener(name, "", port.listener.port, protocol, locate(port.gateway, "spec.listeners"), port.why)


def _on_chain(
    pipeline: Pipeline,
    request: Request,
    port: listening.Port,
    chain: ir.FilterChain,
    shown: str,
    locate: Locate,
    most: int,
) -> Steps[Explanation]:
    sees = seen(request)
    at = listening.virtual_host(pipeline, port.gateway, chain.route_config, sees.host)
    host = Host(chain.route_config, at.domain, at.why)
    base = Explanation(shown, _NOTHING, _bare_listener(port, locate), host, notes=sees.notes)
    if at.place is not None:
        base = replace(base, listener=_listener(pipeline, port, at.place, request, locate))
    if sees.refused is not None:
        status, why = sees.refused
        return replace(base, outcome=Outcome("refused", f"answered with {status} before any route: {why}", status))
    if at.domain is not None and at.place is None:
        words = f"answered with 421: {sees.host} belongs on another connection (its TLS name is another listener's)"
        return replace(base, outcome=Outcome("refused", words, 421))
    ranked = pipeline.parts.http.ranked(at.place, at.domain) if at.place and at.domain else []
    return (yield from _among(pipeline, sees, base, at.place, ranked, locate, most))


_NOTHING = Outcome("no route", "answered with 404: no route matches", 404)


def _listener(pipeline: Pipeline, port: listening.Port, place: Place, request: Request, locate: Locate) -> Listener:
    source = locate(place.owner, listening.listener_field(pipeline, place))
    judged = pipeline.parts.attachments.listener_of(place)
    protocol, hostname = (judged.protocol, judged.hostname) if judged is not None else ("HTTP", None)
    why = f"{port.why}; its hostname {hostname} is the closest" if hostname else f"{port.why}; it has any hostname"
    if port.listener.tls:
        why += f"; the name that TLS asks for is {request.server_name or 'none'}"
    name = f"{place.gateway.namespace}/{place.gateway.name}"
    return Listener(name, place.listener, port.listener.port, protocol, source, why)


def _among(
    pipeline: Pipeline,
    request: Seen,
    base: Explanation,
    place: Place | None,
    ranked: Sequence[Ranked],
    locate: Locate,
    most: int,
) -> Steps[Explanation]:
    yield
    judged = yield from judge(ranked, request)
    candidates = nearest(ranked, judged, request, locate, most=most)
    yield
    tried = {key for *_, key in ranked}
    missed = yield from misses(pipeline, request, locate, tried=tried, matched=judged.chosen is not None)
    base = replace(base, candidates=candidates, omitted=len(ranked) - len(candidates), misses=missed)
    if judged.chosen is None or place is None:
        return base
    chosen = ranked[judged.chosen]
    entry = pipeline.parts.http.entry(place, chosen)
    return _with_effects(pipeline, request, base, place, chosen[3], entry, locate)


def _with_effects(
    pipeline: Pipeline, request: Seen, base: Explanation, place: Place, key: ObjectKey, entry: Entry, locate: Locate
) -> Explanation:
    parts, route = pipeline.parts, entry.route
    rule = f"spec.rules[{entry.rank[3]}]"
    faults = parts.attachments.compiled.get(key).faults
    merged = parts.policies.merged(place, key).of(route.rule.name)
    return replace(
        base,
        outcome=outcome(parts.objects, route, faults, rule=rule, path=request.path),
        filters=tuple(filters(route, merged, locate, key=key, field=rule)),
        policies=settings(merged, locate),
        quotas=tuple(quotas(pipeline, request, route.policies, merged, locate)),
        notes=(
            *base.notes,
            *_notes(pipeline, key, merged),
            *_left_out(pipeline, {key.namespace, place.gateway.namespace}),
        ),
    )


def _notes(pipeline: Pipeline, key: ObjectKey, merged: Merged) -> list[str]:
    """Returns what is to be said about the objects behind a route: what has no effect, and what is not the newest."""
    policies = dict.fromkeys([*(each.policy for each in merged.sources), *(policy for policy, _ in merged.notes)])
    found = [_said(policy, condition) for policy, condition in merged.notes]
    for policy in policies:
        compiled = pipeline.parts.policies.compiled.get(policy)
        found += [_said(policy, condition) for condition in compiled.conditions] if compiled is not None else []
    older = [f"{each} is in force as it last was good: its newest version has faults" for each in (key, *policies)]
    stale = [text for each, text in zip((key, *policies), older, strict=True) if _is_older(pipeline, each)]
    return list(dict.fromkeys([*stale, *found]))


def _left_out(pipeline: Pipeline, namespaces: set[str]) -> list[str]:
    """Returns what is to be said about policies that may be meant for the route, and of which no version was good."""
    objects = pipeline.parts.objects
    candidates = ((key, admitted) for key, admitted in objects.everything() if key.namespace in namespaces)
    found = [
        (key, admitted.faults[0])
        for key, admitted in candidates
        if admitted.faults and is_policy(key) and objects.get(key) is None
    ]
    return [
        f"{key} has faults, and is not in force: {fault.path}: {fault.message}" for key, fault in sorted(found)[:_MOST]
    ]


def _is_older(pipeline: Pipeline, key: ObjectKey) -> bool:
    newest, found = pipeline.parts.objects.peek(key), pipeline.parts.objects.get(key)
    return newest is not None and found is not None and newest.object is not found


def _said(key: ObjectKey, condition: Condition) -> str:
    return f"{key} {condition.field}: {condition.reason}: {condition.message}"
