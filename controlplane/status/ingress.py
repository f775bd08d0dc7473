"""What is said about an Ingress: its own faults and warnings, and those of the objects that it expands to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from controlplane.api.meta import INGRESS_GROUP, ObjectKey
from controlplane.compile.ingress_documents import Made
from controlplane.conditions import Condition, ObjectStatus, false
from controlplane.expansion import Expander
from controlplane.pipeline import Pipeline

# Of rules among others that can be had, the field stands in the message.
_DROPPED: Final = re.compile(r"Dropped Rule: ([^:]+): (.*)", re.DOTALL)
# What follows from what else is said.
_FOLLOWS: Final = frozenset({"ListenersNotValid", "Invalid"})
# A host that only some listeners of a Gateway have is on those.
_OF_ONE_PARENT = "NoMatchingListenerHostname"


def is_ingress(key: ObjectKey) -> bool:
    """Says whether an object is an Ingress."""
    return (key.group, key.kind) == (INGRESS_GROUP, "Ingress")


def ingress_status(pipeline: Pipeline, ingresses: Expander, key: ObjectKey, own: ObjectStatus) -> ObjectStatus:
    """Returns the status of an Ingress; `own` is what is said about it apart from what it expands to.

    Of one that is of no class of ours nothing good is said: only that it names a class that is not there.
    """
    warnings = ingresses.warnings_of(key)
    refused = tuple(each for each in own.conditions if each.severity)
    if not ingresses.is_ours(key):
        return ObjectStatus(conditions=(*refused, *warnings))
    found = [each for made in ingresses.made_of(key) for each in _of_made(pipeline, ingresses, key, made)]
    told = list[Condition]()
    for each in (*refused, *warnings, *found, *_of_gateway(pipeline, ingresses, key)):
        # What several objects, or several conditions of one, say in the same words is one thing.
        if all((each.field, each.message) != (other.field, other.message) for other in told):
            told.append(each)
    if not any(each.type == "Accepted" for each in told):
        return ObjectStatus(conditions=(*own.conditions, *told))
    return ObjectStatus(conditions=tuple(told))


def _of_made(pipeline: Pipeline, ingresses: Expander, key: ObjectKey, made: Made) -> Iterator[Condition]:
    status = pipeline.statuses.current().get(made.key)
    if status is None:
        return
    is_default = ".default-" in made.key.name
    accepted = any(c.type == "Accepted" and c.status == "True" for p in status.parents for c in p.conditions)
    for each in status.faults():
        if (each.reason == _OF_ONE_PARENT and accepted) or (is_default and each.type == "Conflicted"):
            continue
        if made.key.kind == "ListenerSet" and each.reason in _FOLLOWS and each.type in ("Accepted", "Programmed"):
            continue
        dropped = _DROPPED.fullmatch(each.message)
        if dropped is not None:
            each = replace(each, field=dropped[1], message=dropped[2])
        place = ingresses.place_of(made.key, each.field)
        if place is None or place.ingress == key:
            yield replace(each, field=place.field if place is not None else "")
        else:
            yield replace(each, message=f"{place.ingress} {place.field}: {each.message}", field="")


def _of_gateway(pipeline: Pipeline, ingresses: Expander, key: ObjectKey) -> Iterator[Condition]:
    """Yields what is wrong with the Gateway as a whole: of a Gateway that is not ours, routes say nothing."""
    gateway = ingresses.gateway_of(key)
    if gateway is None or pipeline.gateway_of(gateway) is not None:
        return
    if pipeline.objects.peek(gateway) is None:
        message = f"{gateway}, which the IngressClass names, does not exist"
    else:
        message = f"{gateway}, which the IngressClass names, is of no GatewayClass of dragoman.dev/gateway-controller"
    yield false("Accepted", "NoGateway", message, "spec.ingressClassName")
