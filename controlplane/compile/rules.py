"""What rules of HTTPRoutes and GRPCRoutes have in common: backends with filters, mirrors, headers, names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from controlplane.api.grpcroute import GRPCBackendRef, GRPCRouteFilter
from controlplane.api.httpfilters import HTTPHeaderFilter, HTTPRequestMirrorFilter, HTTPRouteFilter
from controlplane.api.httproute import HTTPBackendRef
from controlplane.api.meta import ObjectKey
from controlplane.compile.backends import resolve
from controlplane.compile.hints import NO_HINTS, Hints
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import NO_EDIT, HeaderEdit, Match, Mirror, ValueMatch, WeightedBackend


def backend(
    view: View,
    source: ObjectKey,
    ref: HTTPBackendRef | GRPCBackendRef,
    field: str,
    faults: list[Condition],
    *,
    grpc: bool = False,
    hints: Hints = NO_HINTS,
) -> WeightedBackend:
    """Returns a backend of a rule with its share; what is wrong with it is added to `faults`."""
    resolved = resolve(view, ref, source=source, field=field, http2=grpc or hints.http2, tls=hints.tls)
    if resolved.fault is not None:
        faults.append(resolved.fault)
    if not ref.filters:
        return WeightedBackend(resolved.cluster, ref.weight)
    request, response = NO_EDIT, NO_EDIT
    for index, each in enumerate(ref.filters):
        if each.type == "RequestHeaderModifier":
            request = header_edit(each.request_header_modifier)
        elif each.type == "ResponseHeaderModifier":
            response = header_edit(each.response_header_modifier)
        else:
            answer = "UNAVAILABLE" if grpc else "500"
            message = f"filters of type {each.type} are not supported on a backendRef; it answers with {answer}"
            faults.append(false("Accepted", "UnsupportedValue", message, f"{field}.filters[{index}].type"))
            return WeightedBackend(None, ref.weight)
    return WeightedBackend(resolved.cluster, ref.weight, request, response)


def mirrors(
    view: View,
    source: ObjectKey,
    filters: Sequence[HTTPRouteFilter | GRPCRouteFilter],
    field: str,
    faults: list[Condition],
    *,
    grpc: bool = False,
) -> tuple[Mirror, ...]:
    """Returns where copies of requests go; a mirror that cannot be reached gets none."""
    if not filters:
        return ()
    found = (
        _mirror(view, source, each.request_mirror, f"{field}[{index}].requestMirror", faults, grpc=grpc)
        for index, each in enumerate(filters)
        if each.request_mirror is not None
    )
    return tuple(mirror for mirror in found if mirror is not None)


def _mirror(
    view: View,
    source: ObjectKey,
    mirror: HTTPRequestMirrorFilter,
    field: str,
    faults: list[Condition],
    *,
    grpc: bool,
) -> Mirror | None:
    resolved = resolve(view, mirror.backend_ref, source=source, field=f"{field}.backendRef", http2=grpc)
    if resolved.fault is not None:
        faults.append(resolved.fault)
    if resolved.cluster is None:
        return None
    if mirror.fraction is not None:
        return Mirror(resolved.cluster, mirror.fraction.numerator, mirror.fraction.denominator)
    return Mirror(resolved.cluster, 100 if mirror.percent is None else mirror.percent, 100)


def header_edit(edit: HTTPHeaderFilter | None) -> HeaderEdit:
    """Returns what a filter does to headers."""
    if edit is None:
        return NO_EDIT
    return HeaderEdit(
        set=tuple((h.name, h.value) for h in edit.set),
        add=tuple((h.name, h.value) for h in edit.add),
        remove=tuple(edit.remove),
    )


def first_by_name(values: Iterable[tuple[str, str, bool]]) -> tuple[ValueMatch, ...]:
    """Of several entries for one name only the first counts (Gateway API: HTTPHeaderMatch.name)."""
    first: dict[str, ValueMatch] = {}
    for name, value, regex in values:
        first.setdefault(name, ValueMatch(name, value, regex))
    return tuple(first[name] for name in sorted(first))


def names(rules: Iterable[tuple[str | None, tuple[Match, ...]]]) -> list[str]:
    """Names the rules that have no name by what they match, so that reordering them renames nothing."""
    found: list[str] = []
    for given, matches in rules:
        name = given or hashlib.blake2b(repr(matches).encode(), digest_size=4).hexdigest()
        while name in found:
            name += "+"
        found.append(name)
    return found
