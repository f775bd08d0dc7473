"""Conditions as Kubernetes has them: one of a type, put in place of what the object has of ours.

Conditions are a map by type that several controllers write to. What others wrote stays, in its place; of ours what no
longer holds goes (Gateway API: notes for implementors on conditions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from controlplane.conditions import Condition

Json = dict[str, Any]

MAX_CONDITIONS: Final = 8
MAX_MESSAGE: Final = 4096
"""The schemas allow 32768, but then the conditions of 32 parents would not fit into one object of etcd's."""
_MAX_REASON: Final = 1024
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?\Z")
# No transition: what the API server fills in before anybody has looked.
_NEVER: Final = "1970-01-01T00:00:00Z"

# The types that Gateway API gives to whoever controls an object, and ours beside them. Whoever else writes conditions
# qualifies their types (`example.com/Type`), or uses others.
OURS: Final = frozenset(
    {
        *("Accepted", "Programmed", "ResolvedRefs", "Conflicted", "PartiallyInvalid", "SupportedVersion"),
        *("InsecureFrontendValidationMode", "OverlappingTLSConfig", "Ready", "Scheduled", "Detached"),
        *("NotSupported", "Overridden", "Merged"),
    }
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and of what version of the object something is said."""

    now: str
    generation: int


def conditions(said: Sequence[Condition], observed: object, stamp: Stamp) -> list[Json]:
    """Returns the list of conditions that the object is to have; `observed` is the one that it has.

    Of more than eight, the last of ours are left out.
    """
    ours = one_per_type(said)
    names = OURS | ours.keys()
    out: list[Json] = []
    for each in objects(observed):
        type_ = each.get("type")
        if type_ in ours:
            out.append(_condition(ours.pop(type_), each, stamp))
        elif type_ not in OURS:
            out.append(dict(each))
    out += [_condition(each, {}, stamp) for each in ours.values()]
    room = MAX_CONDITIONS - sum(1 for each in out if each.get("type") not in names)
    return [each for each in out if each.get("type") not in names or (room := room - 1) >= 0]


def one_per_type(said: Iterable[Condition]) -> dict[str, Condition]:
    """Joins conditions of one type: the worst verdict holds, with the messages of all who share it."""
    by_type: dict[str, list[Condition]] = {}
    for each in said:
        by_type.setdefault(each.type, []).append(each)
    return {type_: _joined(found) for type_, found in by_type.items()}


def objects(found: object) -> list[Mapping[str, Any]]:
    """Returns the objects of a list that somebody else may have written; nothing where it is none."""
    items = cast("list[object]", found) if isinstance(found, list) else ()
    return [cast("Mapping[str, Any]", each) for each in items if isinstance(each, dict)]


def _joined(found: list[Condition]) -> Condition:
    if len(found) == 1 and not found[0].field and len(found[0].message) <= MAX_MESSAGE and _fits(found[0].reason):
        return found[0]
    worst = max(each.severity for each in found)
    worse = [each for each in found if each.severity == worst]
    texts = dict.fromkeys(_text(each) for each in worse)
    first = worse[0]
    return Condition(first.type, first.status, _reason(first), _bounded([text for text in texts if text]))


def _text(condition: Condition) -> str:
    return ": ".join(part for part in (condition.field, condition.message) if part)


def _bounded(texts: list[str]) -> str:
    whole = "; ".join(texts)
    if len(whole) <= MAX_MESSAGE:
        return whole
    room = MAX_MESSAGE - len(_rest(len(texts)))
    kept: list[str] = []
    for text in texts:
        room -= len(text) + 2
        if room < 0:
            break
        kept.append(text)
    return "; ".join(kept) + _rest(len(texts) - len(kept)) if kept else whole[: MAX_MESSAGE - 1] + "…"


def _rest(count: int) -> str:
    return f"; and {count} more"


def _reason(condition: Condition) -> str:
    if _fits(condition.reason):
        return condition.reason
    return re.sub(r"^[^A-Za-z]+|[^A-Za-z0-9_]", "", condition.reason)[:_MAX_REASON] or condition.type


def _fits(reason: str) -> bool:
    return len(reason) <= _MAX_REASON and _REASON.match(reason) is not None


def _condition(said: Condition, observed: Mapping[str, Any], stamp: Stamp) -> Json:
    since = observed.get("lastTransitionTime")
    lasts = observed.get("status") == said.status and isinstance(since, str) and since != _NEVER
    return {
        "type": said.type,
        "status": said.status,
        "reason": said.reason,
        "message": said.message,
        "observedGeneration": stamp.generation,
        "lastTransitionTime": since if lasts else stamp.now,
    }
