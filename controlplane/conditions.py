"""What is said about an object: conditions, in one model for files and for Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controlplane.api.meta import GATEWAY_GROUP

Verdict = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of Gateway API's kind; `field` is the path of the field at fault, where one is."""

    type: str
    status: Verdict
    reason: str
    message: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class ParentRef:
    """A parent or ancestor as the status names it; a namespace is None where the spec leaves it out."""

    kind: str
    name: str
    group: str = GATEWAY_GROUP
    namespace: str | None = None
    section: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """What one parent (of a route) or ancestor (of a policy) makes of the object."""

    parent: str  # "Gateway NS/NAME", with "/LISTENER" where one is named
    conditions: tuple[Condition, ...]
    ref: ParentRef


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    name: str
    attached_routes: int
    supported_kinds: tuple[str, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """All that is said about one object."""

    conditions: tuple[Condition, ...] = ()
    parents: tuple[ParentStatus, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()

    def faults(self) -> tuple[Condition, ...]:
        """Returns every condition that tells of something wrong, without repeats."""
        everything = [
            *self.conditions,
            *(c for parent in self.parents for c in parent.conditions),
            *(c for listener in self.listeners for c in listener.conditions),
        ]
        bad = (c for c in everything if c.status == ("True" if c.type in _BAD_WHEN_TRUE else "False"))
        return tuple(dict.fromkeys(bad))


_BAD_WHEN_TRUE = frozenset({"Conflicted", "Overridden", "PartiallyInvalid", "NotSupported"})


def true(type_: str, reason: str | None = None, message: str = "") -> Condition:
    """Returns a condition that holds; the reason is the type's own name unless given."""
    return Condition(type_, "True", reason or type_, message)


def false(type_: str, reason: str, message: str, field: str = "") -> Condition:
    """Returns a condition that does not hold, with the field at fault."""
    return Condition(type_, "False", reason, message, field)
