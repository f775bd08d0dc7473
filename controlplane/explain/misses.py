"""Routes that would have a request, were they attached where it comes in: why nothing matches, or something else."""

from __future__ import annotations

from collections.abc import Collection
from heapq import nsmallest
from typing import NamedTuple

from controlplane.api.meta import ObjectKey
from controlplane.compile import hosts
from controlplane.compile.protocols import HTTP_ROUTES
from controlplane.explain.match import in_words, path_holds, shortfall
from controlplane.explain.model import Miss
from controlplane.explain.request import Seen
from controlplane.explain.sources import Locate
from controlplane.ir import Match
from controlplane.pipeline import Pipeline
from controlplane.slices import Steps

_MOST = 5
_EVERY = 128


class _Near(NamedTuple):
    """A route that would have the request, and how near it is: the least first."""

    distance: tuple[int, bool, int, int, ObjectKey]
    at: tuple[int, int]
    match: Match
    why: str


def misses(
    pipeline: Pipeline, request: Seen, locate: Locate, *, tried: Collection[ObjectKey], matched: bool
) -> Steps[tuple[Miss, ...]]:
    """Returns the routes that are not among those `tried` here, but have a match that holds for the request.

    Where something `matched`, only those that are not served for a fault: the others are not meant for this host.
    Those that are for the host come first, then those of a path of their own, then those of a host that is alike.
    """
    found: list[_Near] = []
    routes = [key for key, _ in pipeline.parts.attachments.routes.items() if key.kind in HTTP_ROUTES]
    for number, key in enumerate(routes, 1):
        if number % _EVERY == 0:
            found = nsmallest(_MOST, found)
            yield
        if key not in tried and (near := _of_route(pipeline, request, key, matched)) is not None:
            found.append(near)
    return tuple(
        Miss(in_words(each.match), locate(each.distance[-1], _field(each.at)), each.why)
        for each in nsmallest(_MOST, found)
    )


def _field(at: tuple[int, int]) -> str:
    return f"spec.rules[{at[0]}].matches[{at[1]}]"


def _of_route(pipeline: Pipeline, request: Seen, key: ObjectKey, matched: bool) -> _Near | None:
    attachments = pipeline.parts.attachments
    route = pipeline.parts.objects.get(key)
    if route is None:
        return None
    for index, rule in enumerate(attachments.compiled.get(key).rules):
        for position, match in enumerate(rule.matches):
            if path_holds(match.path, request.path) and not shortfall(match, request):
                judged = _why(pipeline, request, key, route.spec.hostnames, matched)
                if judged is None:
                    return None
                rank, why = judged
                alike = max((_alike(each, request.host) for each in route.spec.hostnames), default=0)
                path = match.path.value
                return _Near((rank, path == "/", -alike, -len(path), key), (index, position), match, why)
    return None


_REFUSED, _ELSEWHERE, _OTHER_HOST = range(3)


def _why(
    pipeline: Pipeline, request: Seen, key: ObjectKey, hostnames: Collection[str], matched: bool
) -> tuple[int, str] | None:
    attachments = pipeline.parts.attachments
    has_host = any(hosts.covers(each.lower(), request.host) for each in hostnames or (hosts.ANY,))
    if not has_host:
        return None if matched else (_OTHER_HOST, f"its hostnames are {', '.join(hostnames)}")
    attached = attachments.attachment.get(key)
    verdicts = [*attached.missing, *(parent.accepted for parent in attached.parents)]
    refused = [each for each in verdicts if each.status == "False"]
    if refused:
        return _REFUSED, "; ".join(dict.fromkeys(f"{each.field}: {each.message}" for each in refused))
    rivals = [other for place, _ in attachments.places(key) if (other := attachments.rejected.get(place).get(key))]
    if rivals:
        return _REFUSED, f"its hostname belongs to {rivals[0]}"
    if not attached.parents:
        return _REFUSED, "none of its parentRefs is a Gateway of ours"
    places = ", ".join(f"{p.gateway.namespace}/{p.gateway.name} listener {p.listener}" for p in attached.places)
    return None if matched else (_ELSEWHERE, f"it is elsewhere: {places}")


def _alike(hostname: str, host: str) -> int:
    """Returns how many letters two names have in common, from both ends."""
    one, other = hostname.lower().removeprefix("*"), host
    return min(_in_common(one, other) + _in_common(one[::-1], other[::-1]), len(one), len(other))


def _in_common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
