"""What is said of an object, as the `status` that Kubernetes keeps of it (Gateway API: status of each kind)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from controlplane.api.meta import ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.status.entries import ancestors, parents
from controlplane.status.features import FEATURES
from controlplane.status.merge import Json, Stamp, conditions, objects
from controlplane.status.programmed import unaccepted

INGRESS_GROUP: Final = "networking.k8s.io"
_MAX_ADDRESSES: Final = 16
_MAX_LISTENERS: Final = 64
_NEWEST_MINOR: Final = 6
_PENDING: Final = Condition("Programmed", "Unknown", "Pending", "no Envoy has said yet that it serves this")


class Observed(Protocol):
    """An object as the API server has it."""

    @property
    def api_version(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def status(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What statuses depend on beside the objects.

    `versions` are the Gateway API CRDs that the cluster has, by name, each with its `bundle-version` ("" where it has
    none); None where that is not known, and nothing is said of it.
    """

    controller: str
    versions: Mapping[str, str] | None = None
    features: Sequence[str] = field(default=FEATURES)


def encode(
    key: ObjectKey,
    status: ObjectStatus | None,
    observed: Observed,
    *,
    now: datetime,
    setting: Setting,
    generation: int | None = None,
) -> Json | None:
    """Returns the whole status that an object is to have; None where it has it, or where it is not ours to write.

    `status` is None for an object that is not ours: what we wrote into entries of it goes. `generation` is that of the
    version which the status is about; the observed one unless given.
    """
    shape = shape_of(key)
    if shape is None:
        return None
    stamp = Stamp(_time(now), observed.generation if generation is None else generation)
    said = shape(_Case(key, status or ObjectStatus(), observed.status, stamp, setting))
    if said is None:
        return None
    whole = {name: value for name, value in {**observed.status, **said}.items() if value is not None}
    return whole if whole != observed.status else None


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Json:
    """Returns what turns `old` into `new` (RFC 7396)."""
    patch: Json = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, Mapping):
            if inner := merge_patch(before, value):  # pyright: ignore[reportUnknownArgumentType]
                patch[name] = inner
        elif name not in old or before != value:
            patch[name] = value
    return patch


@dataclass(frozen=True, slots=True)
class _Case:
    key: ObjectKey
    said: ObjectStatus
    observed: Mapping[str, Any]
    stamp: Stamp
    setting: Setting

    def conditions(self, said: Sequence[Condition]) -> list[Json]:
        return conditions(said, self.observed.get("conditions"), self.stamp)


Shape = Callable[[_Case], "Json | None"]
"""Returns the parts of the status that are ours, None for one that is to go; or None to leave the object alone."""


def shape_of(key: ObjectKey) -> Shape | None:
    """Returns how the status of a kind is made; None for a kind that has none."""
    if key.group == GATEWAY_GROUP:
        return _GATEWAY_API.get(key.kind)
    if key.group in (POLICY_GROUP, ENVOY_GATEWAY_GROUP):
        return _policy_shape(key)
    return _ingress if (key.group, key.kind) == (INGRESS_GROUP, "Ingress") else None


def _policy_shape(key: ObjectKey) -> Shape | None:
    if key.kind in ("Backend", "Plan"):
        return _plain
    if key.kind in ("HTTPRouteFilter", "ProxyConfig", "EnvoyProxy"):
        # Envoy Gateway's CRDs have no conditions for these, and drop what they do not know.
        return _plain if key.group == POLICY_GROUP else None
    return _policy


def _plain(case: _Case) -> Json | None:
    if not case.said.conditions:
        return None
    return {"conditions": case.conditions(case.said.conditions)}


def _gateway_class(case: _Case) -> Json | None:
    said = case.said.conditions
    if not said:
        return None
    if case.setting.versions is not None:
        said = (*said, _version(case.setting.versions))
    features = [{"name": name} for name in sorted(case.setting.features)]
    return {"conditions": case.conditions(said), "supportedFeatures": features}


def _version(versions: Mapping[str, str]) -> Condition:
    """Judges the CRDs that are there (Gateway API: GatewayClassConditionStatusSupportedVersion)."""
    strange = sorted(name for name, version in versions.items() if not _known(version))
    if not strange:
        return true("SupportedVersion")
    shown = ", ".join(f"{name} {versions[name] or 'without a version'}" for name in strange)
    message = f"the cluster has {shown}; known are v1.0 to v1.{_NEWEST_MINOR}, others are served as well as can be"
    return false("SupportedVersion", "UnsupportedVersion", message)


def _known(version: str) -> bool:
    found = re.match(r"v1\.(\d{1,4})\.\d", version)
    return found is not None and int(found[1]) <= _NEWEST_MINOR


def _gateway(case: _Case) -> Json | None:
    said = case.said
    if not said.conditions and not said.listeners:
        return None
    return {
        "addresses": [{"type": type_, "value": value} for type_, value in said.addresses[:_MAX_ADDRESSES]] or None,
        **({} if said.attached_listener_sets is None else {"attachedListenerSets": said.attached_listener_sets}),
        "conditions": case.conditions(_whole(case.key, said)),
        "listeners": _listeners(case) or None,
    }


def _listener_set(case: _Case) -> Json | None:
    if not case.said.conditions and not case.said.listeners:
        return None
    return {"conditions": case.conditions(_whole(case.key, case.said)), "listeners": _listeners(case) or None}


def _whole(key: ObjectKey, said: ObjectStatus) -> tuple[Condition, ...]:
    """Adds what a Gateway or ListenerSet always has to say: readers wait for each of these to be up to date."""
    found = {each.type for each in said.conditions}
    out = list(said.conditions)
    if "Programmed" not in found:
        out.append(unaccepted(key, said.conditions) or _PENDING)
    if "ResolvedRefs" not in found and said.listeners and key.kind == "Gateway":
        out.append(_resolved(said.listeners))
    return tuple(out)


def _resolved(listeners: Sequence[ListenerStatus]) -> Condition:
    bad = [
        each.name for each in listeners if any(c.type == "ResolvedRefs" and c.severity == 2 for c in each.conditions)
    ]
    if not bad:
        return true("ResolvedRefs")
    message = f"listeners that refer to what cannot be used: {', '.join(bad)}"
    return false("ResolvedRefs", "ListenersNotResolved", message, "spec.listeners")


def _listeners(case: _Case) -> list[Json]:
    before = {each.get("name"): each for each in objects(case.observed.get("listeners"))}
    return [_listener(each, before.get(each.name, {}), case.stamp) for each in case.said.listeners[:_MAX_LISTENERS]]


def _listener(said: ListenerStatus, observed: Mapping[str, Any], stamp: Stamp) -> Json:
    found = {each.type for each in said.conditions}
    all_conditions = list(said.conditions)
    if "Programmed" not in found:
        all_conditions.append(_PENDING)
    if "Conflicted" not in found:
        all_conditions.append(Condition("Conflicted", "False", "NoConflicts"))
    return {
        "name": said.name,
        "supportedKinds": [{"group": GATEWAY_GROUP, "kind": kind} for kind in said.supported_kinds],
        "attachedRoutes": said.attached_routes,
        "conditions": conditions(all_conditions, observed.get("conditions"), stamp),
    }


def _route(case: _Case) -> Json | None:
    # What is wrong with the route itself concerns all its parents; what is said of a parentRef, that parent alone.
    own = tuple(each for each in case.said.conditions if not each.field.startswith("spec.parentRefs"))
    said = [ParentStatus(each.parent, (*each.conditions, *own), each.ref) for each in case.said.parents]
    found = parents(said, case.observed.get("parents"), case.setting.controller, case.stamp)
    return {"parents": found} if found or case.observed.get("parents") else None


def _policy(case: _Case) -> Json | None:
    said = list(case.said.parents)
    if case.said.conditions:
        refs = case.said.targets
        if not refs and case.key.group != GATEWAY_GROUP and any(each.severity for each in case.said.conditions):
            refs = (_itself(case.key),)
        said += [ParentStatus("", case.said.conditions, ref) for ref in refs]
    found = ancestors(said, case.observed.get("ancestors"), case.setting.controller, case.stamp)
    return {"ancestors": found} if found or case.observed.get("ancestors") else None


def _itself(key: ObjectKey) -> ParentRef:
    # A policy whose targets cannot even be read has nothing else to say it under.
    return ParentRef(key.kind, key.name, key.group, key.namespace)


def _ingress(case: _Case) -> Json | None:
    if not case.said.addresses and not case.said.conditions:
        return None
    named = [{"hostname" if type_ == "Hostname" else "ip": value} for type_, value in case.said.addresses]
    return {"loadBalancer": {"ingress": named} if named else {}}


def _time(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_GATEWAY_API: Final[Mapping[str, Shape]] = {
    "GatewayClass": _gateway_class,
    "Gateway": _gateway,
    "ListenerSet": _listener_set,
    "BackendTLSPolicy": _policy,
    **dict.fromkeys(("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"), _route),
}
