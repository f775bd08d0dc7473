"""What a policy applies to, also where the policy as a whole cannot be read: a broken guard must still guard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey, PolicyTargetSelector
from controlplane.api.policy import PolicySpec


@dataclass(frozen=True, slots=True)
class Target:
    """An object, or one section of it: a listener or a rule."""

    key: ObjectKey
    section: str | None = None
    field: str = ""


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a policy, by name and by label; all are of `namespace`."""

    namespace: str
    named: tuple[Target, ...] = ()
    selectors: tuple[PolicyTargetSelector, ...] = ()


def of_spec(spec: PolicySpec, namespace: str) -> Targets:
    """Returns the targets of a policy."""
    field = "spec.targetRef" if spec.target_ref is not None else "spec.targetRefs[{}]"
    named = (
        Target(ObjectKey(t.group, t.kind, namespace, t.name), t.section_name, field.format(index))
        for index, t in enumerate(spec.targets)
    )
    return Targets(namespace, tuple(named), spec.target_selectors)


def of_document(document: Mapping[str, object], namespace: str) -> Targets:
    """Returns the targets of a policy that its model refuses, as far as they can be told."""
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return Targets(namespace)
    fields = cast("Mapping[str, Any]", spec)
    named = [Target(ObjectKey(GATEWAY_GROUP, kind, namespace, name)) for kind, name in _named(fields)]
    return Targets(namespace, tuple(dict.fromkeys(named)), tuple(_selectors(fields.get("targetSelectors"))))


def _named(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    refs = spec.get("targetRefs")
    candidates: list[Any] = [spec.get("targetRef"), *(cast("list[Any]", refs) if isinstance(refs, list) else ())]
    for ref in candidates:
        if isinstance(ref, Mapping):
            target = cast("Mapping[str, Any]", ref)
            if isinstance(target.get("kind"), str) and isinstance(target.get("name"), str):
                yield target["kind"], target["name"]


def _selectors(given: Any) -> Iterator[PolicyTargetSelector]:
    for each in cast("list[Any]", given) if isinstance(given, list) else ():
        try:
            yield PolicyTargetSelector.model_validate(each, by_name=False)
        except ValidationError:
            continue
