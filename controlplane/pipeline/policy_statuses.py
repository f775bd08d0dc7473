"""The status of a policy: what each Gateway that it reaches makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from controlplane import ir
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.attachment import PARENTS
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.gateway import GatewayListener
from controlplane.compile.policies import Compiled, Merged
from controlplane.compile.protocols import HTTP_ROUTES, PROTOCOLS
from controlplane.compile.ratelimit import Limits
from controlplane.compile.targets import Target
from controlplane.conditions import Condition, ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.policies import Place, PolicyIndex

_HTTP: Final = frozenset(name for name, protocol in PROTOCOLS.items() if protocol.http)
_Reached = Mapping[ParentRef, Sequence[Merged]]
"""Of a target that is there: the Gateways through which the policy has effect, and the merges that it was part of."""


class PolicyStatuses:
    """Computes statuses of policies; each source of verdicts is given as a function."""

    def __init__(
        self,
        objects: Objects,
        index: PolicyIndex,
        *,
        targets: Callable[[ObjectKey], Iterable[Target]],
        of_parent: Callable[[ObjectKey], tuple[ObjectKey, Sequence[GatewayListener]] | None],
        compiled: Callable[[ObjectKey], CompiledRoute],
        places: Callable[[ObjectKey], Iterable[Place]],
    ) -> None:
        self._objects = objects
        self._index = index
        self._targets = targets
        self._of_parent = of_parent
        self._compiled = compiled
        self._places = places

    def compute(self, key: ObjectKey) -> ObjectStatus:
        """Returns what is to be said about a policy that is in force."""
        compiled = self._index.compiled.get(key)
        missing: list[Condition] = []
        told: dict[ParentRef, list[Condition]] = {}
        for target in self._targets(key):
            found = self._look(target)
            if isinstance(found, Condition):
                missing.append(found)
                continue
            for ancestor, merges in (found or {}).items():
                here = told.setdefault(ancestor, [])
                here += self._unlimited(compiled, target)
                here += [each for merge in dict.fromkeys(merges) for policy, each in merge.notes if policy == key]
        everywhere = compiled.conditions if compiled is not None else ()
        if not told and not missing:
            return ObjectStatus(conditions=_ordered(everywhere))
        parents = (ParentStatus(_title(ref), _ordered((*everywhere, *here)), ref) for ref, here in told.items())
        return ObjectStatus((*missing, *(() if told else everywhere)), tuple(parents))

    def _unlimited(self, compiled: Compiled | None, target: Target) -> Iterable[Condition]:
        """Yields what is to be said of a route's rules that limits of the service do not hold on."""
        if target.key.kind not in HTTP_ROUTES or not isinstance(compiled, Limits) or compiled.global_limit is None:
            return
        rules = [rule for rule in self._compiled(target.key).rules if target.section in (None, rule.name)]
        if any(isinstance(rule.action, ir.Redirect) or _answers(rule.action) for rule in rules):
            message = f"has no effect on the rules of {target.key} that redirect or answer themselves; local limits do"
            yield Condition("NotSupported", "True", "UnsupportedField", message, "spec.rateLimit.global")

    def _look(self, target: Target) -> _Reached | Condition | None:
        if target.key.group != GATEWAY_GROUP or target.key.kind not in (*PARENTS, *HTTP_ROUTES):
            message = f"targets of kind {target.key.kind} are not supported yet"
            return Condition("NotSupported", "True", "UnsupportedField", message, f"{target.field}.kind")
        if self._objects.get(target.key) is None:
            faulty = self._objects.candidate(target.key) is not None
            what = "has faults, and never was in force" if faulty else "does not exist"
            return false("Accepted", "TargetNotFound", f"{target.key} {what}", f"{target.field}.name")
        if target.key.kind in PARENTS:
            return self._parent(target)
        return self._route(target)

    def _parent(self, target: Target) -> _Reached | Condition | None:
        found = self._of_parent(target.key)
        if found is None:
            return None
        gateway, own = found
        meant = [each for each in own if target.section in (None, each.name)]
        if not meant:
            what = f"listener {target.section}" if target.section else "listener in force"
            return false("Accepted", "TargetNotFound", f"{target.key} has no {what}", f"{target.field}.sectionName")
        if not any(each.protocol in _HTTP for each in meant):
            message = f"no listener of {target.key} that the policy is about carries HTTP, so that it has no effect"
            return Condition("NotSupported", "True", "UnsupportedField", message, target.field)
        merges = [self._index.inherited.get(Place(gateway, each.id)).default for each in meant]
        return {_ancestor(target.key, target.section): merges}

    def _route(self, target: Target) -> _Reached | Condition | None:
        if target.section is not None and all(r.name != target.section for r in self._compiled(target.key).rules):
            message = f"{target.key} has no rule {target.section}"
            return false("Accepted", "TargetNotFound", message, f"{target.field}.sectionName")
        found: dict[ParentRef, list[Merged]] = {}
        for place in self._places(target.key):
            found.setdefault(_ancestor(place.gateway), []).extend(self._index.merged(place, target.key).all())
        return found


def _ordered(told: Iterable[Condition]) -> tuple[Condition, ...]:
    """Returns each condition once: whether the policy is accepted, then what else there is to say."""
    once = list(dict.fromkeys(told))
    accepted = [each for each in once if each.type == "Accepted"] or [true("Accepted")]
    return (*accepted, *(each for each in once if each.type != "Accepted"))


def _answers(action: ir.Action) -> bool:
    return isinstance(action, ir.Respond) and action.status < 500


def _ancestor(gateway: ObjectKey, section: str | None = None) -> ParentRef:
    return ParentRef(gateway.kind, gateway.name, gateway.group, gateway.namespace, section)


def _title(ref: ParentRef) -> str:
    name = f"{ref.kind} {ref.namespace}/{ref.name}"
    return f"{name}/{ref.section}" if ref.section else name
