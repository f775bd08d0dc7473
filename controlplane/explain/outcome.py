"""What happens with a request that a route has: where it goes, or what is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane import ir
from controlplane.compile import backends
from controlplane.compile.view import View
from controlplane.conditions import Condition
from controlplane.explain.model import Backend, Outcome

_MOST_ENDPOINTS = 8


def outcome(view: View, route: ir.Route, faults: Sequence[Condition], *, rule: str, path: str) -> Outcome:
    """Returns what happens with a path; `faults` are those of the whole route, `rule` is the path of the rule in it."""
    deny, action = route.policies.deny, route.rule.action
    if deny is not None:
        return Outcome("deny", f"answered with {deny.status}: {deny.reason}", deny.status)
    if isinstance(action, ir.Redirect):
        words = f"redirected ({action.status}): {_target(action)}"
        return Outcome("redirect", words, action.status, details=tuple(_becomes(action.path, route.match, path)))
    if isinstance(action, ir.Respond):
        why = "; ".join(f"{each.field}: {each.message}" for each in faults if each.field.startswith(f"{rule}."))
        return Outcome("respond", f"answered with {action.status}" + (f": {why}" if why else ""), action.status)
    return _forward(view, action, faults, route, rule, path)


def effect(route: ir.Route) -> str:
    """Returns what a route does in one line, whatever there is behind its backends now."""
    deny, action = route.policies.deny, route.rule.action
    if deny is not None:
        return f"answered with {deny.status}"
    if isinstance(action, ir.Redirect):
        return "; ".join([f"redirected ({action.status}): {_target(action)}", *_header_edits(route.rule)])
    if isinstance(action, ir.Respond):
        return f"answered with {action.status}"
    if all(each.cluster is None for each in action.backends):
        return f"answered with {503 if action.grpc else 500}"
    total = sum(each.weight for each in action.backends) or 1
    shares = (f"{_share(each, total)}{_object(each.cluster)}" for each in action.backends)
    return "; ".join([", ".join(shares), *_details(action, route.rule)])


def _share(backend: ir.WeightedBackend, total: int) -> str:
    return "" if backend.weight == total else f"{round(100 * backend.weight / total, 1):g} % "


def _object(id_: ir.ClusterId | None) -> str:
    if id_ is None:
        return "no backend"
    return f"{id_.kind} {id_.namespace}/{id_.name}" + (f" port {id_.port}" if id_.port else "")


def _header_edits(rule: ir.Rule) -> list[str]:
    return [*_edits(rule.request_headers, "request"), *_edits(rule.response_headers, "response")]


def _forward(
    view: View, forward: ir.Forward, faults: Sequence[Condition], route: ir.Route, rule: str, path: str
) -> Outcome:
    invalid = 503 if forward.grpc else 500
    found = tuple(_backends(view, forward, faults, rule, invalid))
    details = (*_details(forward, route.rule), *_becomes(forward.path, route.match, path))
    why = next((each.note for each in found if each.cluster is None), "")
    if all(each.cluster is None for each in found):
        return Outcome("respond", why, invalid, found, details)
    names = " or ".join(dict.fromkeys(each.object for each in found))
    words = f"sent to {names}"
    if not any(each.endpoints for each in found):
        words += ", where there is no endpoint: answered with 503"
    return Outcome("forward", words, None, found, details)


def _backends(
    view: View, forward: ir.Forward, faults: Sequence[Condition], rule: str, invalid: int
) -> Iterator[Backend]:
    total = sum(each.weight for each in forward.backends) or 1
    wrong = [each for each in faults if each.field.startswith(f"{rule}.backendRefs")]
    for each in forward.backends:
        percent = round(100 * each.weight / total, 1)
        if each.cluster is None:
            why = "; ".join(f"{fault.field}: {fault.message}" for fault in wrong)
            yield Backend("no backend", None, each.weight, percent, note=f"answered with {invalid}: {why}")
            continue
        yield _backend(view, each, each.cluster, percent)


def _backend(view: View, source: ir.WeightedBackend, id_: ir.ClusterId, percent: float) -> Backend:
    cluster, found = backends.cluster(view, id_), backends.endpoints(view, id_)
    shown = [_address(each) for each in found.endpoints]
    more = [f"and {len(shown) - _MOST_ENDPOINTS} more"] if len(shown) > _MOST_ENDPOINTS else []
    notes: list[str] = []
    if cluster is None or cluster.blocked:
        shown, more = [], []
        notes.append("it has gone" if cluster is None else "nothing is sent: it cannot be trusted as it should be")
    elif cluster.tls is not None:
        checked = "" if cluster.tls.verify else ", its certificate unchecked"
        notes.append(f"by TLS{checked}")
    if cluster is not None and cluster.protocol is ir.Protocol.HTTP2:
        notes.append("by HTTP/2")
    names = backends.host_names(view, id_)
    if names and not shown:
        notes.append(f"at the addresses of {', '.join(names)}")
    notes += _edits(source.request_headers, "request")
    notes += _edits(source.response_headers, "response")
    endpoints = (*shown[:_MOST_ENDPOINTS], *more)
    return Backend(_object(id_), str(id_), source.weight, percent, endpoints, "; ".join(notes))


def _details(forward: ir.Forward, rule: ir.Rule) -> Iterator[str]:
    yield from _header_edits(rule)
    if forward.hostname is not None:
        yield f"the host becomes {forward.hostname}"
    if forward.path is not None:
        yield _rewrite(forward.path)
    for mirror in forward.mirrors:
        share = round(100 * mirror.numerator / mirror.denominator, 2)
        yield f"{share:g} % are copied to {mirror.cluster}"
    if forward.request_timeout_s is not None:
        yield f"time-out of the request: {_limit(forward.request_timeout_s)}"
    if forward.backend_timeout_s is not None:
        yield f"time-out of each try: {_limit(forward.backend_timeout_s)}"
    if forward.idle_timeout_s is not None:
        yield f"time-out where nothing moves: {_limit(forward.idle_timeout_s)}"
    if forward.retry is not None:
        codes = f", also on {', '.join(map(str, forward.retry.codes))}" if forward.retry.codes else ""
        yield f"up to {forward.retry.attempts} more tries{codes}"


def _limit(seconds: float) -> str:
    return f"{seconds:g} s" if seconds else "none"


def _edits(edit: ir.HeaderEdit, where: str) -> list[str]:
    out = [f"{where} header {name} is set to {value!r}" for name, value in edit.set]
    out += [f"{where} header {name} gets {value!r} added" for name, value in edit.add]
    return out + [f"{where} header {name} is removed" for name in edit.remove]


def _rewrite(rewrite: ir.PathRewrite) -> str:
    if rewrite.kind == "ReplaceFullPath":
        return f"the path becomes {rewrite.value}"
    if rewrite.kind == "ReplacePrefixMatch":
        return f"the prefix that matched becomes {rewrite.value}"
    return f"what is like {rewrite.pattern} in the path becomes {rewrite.value}"


def _becomes(rewrite: ir.PathRewrite | None, match: ir.Match, path: str) -> Iterator[str]:
    """Says what a path is after a rewrite of its prefix (Gateway API: HTTPPathModifier.replacePrefixMatch)."""
    if rewrite is not None and rewrite.kind == "ReplacePrefixMatch":
        rest = path[len(match.path.value.rstrip("/")) :]
        changed = rewrite.value.rstrip("/") + rest if rest else rewrite.value
        yield f"here {path} becomes {changed or '/'}"


def _target(redirect: ir.Redirect) -> str:
    parts = [
        f"scheme {redirect.scheme}" if redirect.scheme else "",
        f"host {redirect.hostname}" if redirect.hostname else "",
        f"port {redirect.port}" if redirect.port else "",
        _rewrite(redirect.path) if redirect.path else "",
    ]
    return ", ".join(filter(None, parts)) or "to the same URL"


def _address(endpoint: ir.Endpoint) -> str:
    if not endpoint.port:
        return endpoint.address
    return f"[{endpoint.address}]:{endpoint.port}" if ":" in endpoint.address else f"{endpoint.address}:{endpoint.port}"
