"""Routes that would have a request, were they attached where it comes in: why nothing matches, or something else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from controlplane.api.meta import ObjectKey
from controlplane.compile import hosts
from controlplane.compile.protocols import HTTP_ROUTES
from controlplane.explain.match import in_words, path_holds, shortfall
from controlplane.explain.model import Miss
from controlplane.explain.request import Seen
from controlplane.explain.slices import Steps
from controlplane.explain.sources import Locate
from controlplane.pipeline import Pipeline

_MOST = 5


def misses(
    pipeline: Pipeline, request: Seen, locate: Locate, *, tried: Collection[ObjectKey], matched: bool
) -> Steps[tuple[Miss, ...]]:
    """Returns the routes that are not among those `tried` here, but have a match that holds for the request.

    Where something `matched`, only those that are not served for a fault: the others are not meant for this host.
    """
    found: list[Miss] = []
    routes = sorted(key for key, _ in pipeline.parts.attachments.routes.items() if key.kind in HTTP_ROUTES)
    for number, key in enumerate(routes, 1):
        if number % 128 == 0:
            yield
        if key not in tried:
            found += islice(_of_route(pipeline, request, locate, key, matched), 1)
        if len(found) >= _MOST:
            break
    return tuple(found)


def _of_route(pipeline: Pipeline, request: Seen, locate: Locate, key: ObjectKey, matched: bool) -> Iterator[Miss]:
    attachments = pipeline.parts.attachments
    route = pipeline.parts.objects.get(key)
    if route is None:
        return
    for index, rule in enumerate(attachments.compiled.get(key).rules):
        for position, match in enumerate(rule.matches):
            if path_holds(match.path, request.path) and not shortfall(match, request):
                why = _why(pipeline, request, key, route.spec.hostnames, matched)
                if why is not None:
                    yield Miss(in_words(match), locate(key, f"spec.rules[{index}].matches[{position}]"), why)
                return


def _why(pipeline: Pipeline, request: Seen, key: ObjectKey, hostnames: Collection[str], matched: bool) -> str | None:
    attachments = pipeline.parts.attachments
    attached = attachments.attachment.get(key)
    has_host = any(hosts.covers(each.lower(), request.host) for each in hostnames or (hosts.ANY,))
    if not has_host:
        return None if matched else f"its hostnames are {', '.join(hostnames)}"
    verdicts = [*attached.missing, *(parent.accepted for parent in attached.parents)]
    refused = [each for each in verdicts if each.status == "False"]
    if refused:
        return "; ".join(dict.fromkeys(f"{each.field}: {each.message}" for each in refused))
    rivals = [other for place, _ in attachments.places(key) if (other := attachments.rejected.get(place).get(key))]
    if rivals:
        return f"its hostname belongs to {rivals[0]}"
    if not attached.parents:
        return "none of its parentRefs is a Gateway of ours"
    places = ", ".join(f"{p.gateway.namespace}/{p.gateway.name} listener {p.listener}" for p in attached.places)
    return None if matched else f"it is elsewhere: {places}"
