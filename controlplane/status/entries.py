"""Entries of a status that several controllers share: `parents` of routes and `ancestors` of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.api.meta import GATEWAY_GROUP
from controlplane.conditions import Condition, ParentRef, ParentStatus
from controlplane.status.merge import Json, Stamp, conditions, objects

MAX_PARENTS: Final = 32
MAX_ANCESTORS: Final = 16


def parents(said: Sequence[ParentStatus], observed: object, controller: str, stamp: Stamp) -> list[Json]:
    """Returns the `parents` that a route is to have (Gateway API: RouteStatus); `observed` are those that it has."""
    return _entries(said, observed, controller, stamp, "parentRef", MAX_PARENTS)


def ancestors(said: Sequence[ParentStatus], observed: object, controller: str, stamp: Stamp) -> list[Json]:
    """Returns the `ancestors` that a policy is to have (Gateway API: PolicyStatus). To a full list none is added."""
    return _entries(said, observed, controller, stamp, "ancestorRef", MAX_ANCESTORS)


def _entries(
    said: Sequence[ParentStatus], observed: object, controller: str, stamp: Stamp, ref_field: str, limit: int
) -> list[Json]:
    ours: dict[ParentRef, list[Condition]] = {}
    for each in said:
        ours.setdefault(each.ref, []).extend(each.conditions)
    out: list[Json] = []
    for each in objects(observed):
        if each.get("controllerName") != controller:
            out.append(dict(each))
        elif found := ours.pop(_ref(each.get(ref_field)), None):
            out.append(_entry(each, found, stamp))
    for ref, found in ours.items():
        if found and len(out) < limit:
            out.append(_entry({ref_field: _ref_json(ref), "controllerName": controller}, found, stamp))
    return out


def _entry(observed: Mapping[str, Any], said: Sequence[Condition], stamp: Stamp) -> Json:
    return {**observed, "conditions": conditions(said, observed.get("conditions"), stamp)}


def _ref(found: object) -> ParentRef:
    ref: Mapping[str, Any] = found if isinstance(found, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]
    return ParentRef(
        kind=ref.get("kind", "Gateway"),
        name=ref.get("name", ""),
        group=ref.get("group", GATEWAY_GROUP),
        namespace=ref.get("namespace"),
        section=ref.get("sectionName"),
        port=ref.get("port"),
    )


def _ref_json(ref: ParentRef) -> Json:
    found = {
        "group": ref.group,
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "sectionName": ref.section,
        "port": ref.port,
    }
    return {name: value for name, value in found.items() if value is not None}
