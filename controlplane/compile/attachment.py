"""Which listeners a route is attached to, and on which domains (Gateway API: ParentReference, AllowedRoutes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey, ParentReference
from controlplane.compile.gateway import GatewayListener
from controlplane.compile.hosts import intersect
from controlplane.compile.namespaces import admits
from controlplane.compile.view import View
from controlplane.conditions import Condition, ParentRef, false, true

Listeners = Callable[[ObjectKey], tuple[ObjectKey, Sequence[GatewayListener]] | None]
"""Returns the Gateway of a Gateway or ListenerSet, and the listeners that the object itself has; None if not ours."""
PARENTS = ("Gateway", "ListenerSet")


class Attached(NamedTuple):
    """A route on one listener, by its id."""

    gateway: ObjectKey
    listener: str
    domains: tuple[str, ...]


class AttachedParent(NamedTuple):
    """What one parent makes of a route: its verdict, and the listeners that it is on there."""

    title: str
    accepted: Condition
    ref: ParentRef
    places: tuple[Attached, ...] = ()


class Attachment(NamedTuple):
    """All places of a route, and what each of its parents makes of it."""

    places: tuple[Attached, ...] = ()
    parents: tuple[AttachedParent, ...] = ()
    missing: tuple[Condition, ...] = ()  # of Gateways that nobody has


def attach(view: View, route: Any, listeners: Listeners) -> Attachment:
    """Attaches a route of any kind to the listeners that its parentRefs name and that let it in."""
    places: dict[tuple[ObjectKey, str], Attached] = {}
    parents: list[AttachedParent] = []
    missing: list[Condition] = []
    for index, ref in enumerate(route.spec.parent_refs):
        parent = ObjectKey(ref.group, ref.kind, ref.namespace or route.metadata.namespace, ref.name)
        if parent.group != GATEWAY_GROUP or parent.kind not in PARENTS:
            continue
        judged = listeners(parent)
        if judged is None:
            if view.get(parent) is None:
                field = f"spec.parentRefs[{index}].name"
                missing.append(false("Accepted", "NoMatchingParent", f"{parent} does not exist", field))
            continue
        found, condition = _attach_to(view, route, ref, parent, judged, f"spec.parentRefs[{index}]")
        places.update({(place.gateway, place.listener): place for place in found})
        parents.append(AttachedParent(_title(parent, ref), condition, _as_written(ref), tuple(found)))
    return Attachment(tuple(places.values()), tuple(parents), tuple(missing))


def _attach_to(
    view: View,
    route: Any,
    ref: ParentReference,
    parent: ObjectKey,
    judged: tuple[ObjectKey, Sequence[GatewayListener]],
    field: str,
) -> tuple[list[Attached], Condition]:
    gateway, listeners = judged
    if not listeners:
        message = f"{parent} has no listener in force"
        return [], false("Accepted", "NoMatchingParent", message, f"{field}.name")
    named = [each for each in listeners if _named_by(ref, each)]
    if not named:
        what = " and ".join(
            text for text in (ref.section_name and f"name {ref.section_name}", ref.port and f"port {ref.port}") if text
        )
        message = f"{parent} has no listener of {what}"
        return [], false("Accepted", "NoMatchingParent", message, f"{field}.sectionName")
    allowed = [each for each in named if _allows(view, each, route)]
    if not allowed:
        message = f"no listener of {parent} lets {route.kind}s of namespace {route.metadata.namespace} attach"
        return [], false("Accepted", "NotAllowedByListeners", message, field)
    hostnames: tuple[str, ...] = getattr(route.spec, "hostnames", ())
    places = [
        Attached(gateway, each.id, domains) for each in allowed if (domains := intersect(each.hostname, hostnames))
    ]
    if not places:
        theirs = ", ".join(each.hostname or "*" for each in allowed)
        message = f"none of the route's hostnames is served; the listeners of {parent} have: {theirs}"
        return [], false("Accepted", "NoMatchingListenerHostname", message, "spec.hostnames")
    return places, true("Accepted")


def _named_by(ref: ParentReference, listener: GatewayListener) -> bool:
    return ref.section_name in (None, listener.name) and ref.port in (None, listener.port)


def _allows(view: View, listener: GatewayListener, route: Any) -> bool:
    if route.kind not in listener.kinds:
        return False
    namespaces = listener.spec.allowed_routes.namespaces
    return admits(view, namespaces, route.metadata.namespace, home=listener.owner.namespace)


def _title(parent: ObjectKey, ref: ParentReference) -> str:
    return f"{parent}/{ref.section_name}" if ref.section_name else str(parent)


def _as_written(ref: ParentReference) -> ParentRef:
    return ParentRef(ref.kind, ref.name, ref.group, ref.namespace, ref.section_name, ref.port)
