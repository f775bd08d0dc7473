"""What is said about an object: conditions, in one model for files and for Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

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

    @property
    def severity(self) -> int:
        """2: something is wrong; 1: not known; 0: all is well."""
        if self.status == "Unknown":
            return 1
        return 2 if self.status == ("True" if self.type in _BAD_WHEN_TRUE else "False") else 0


class ParentRef(NamedTuple):
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
    addresses: tuple[tuple[str, str], ...] = ()  # (type, value) of a Gateway's addresses, and of an Ingress's
    attached_listener_sets: int | None = None  # of a Gateway
    targets: tuple[ParentRef, ...] = ()  # of a policy: what `conditions` are about, where no ancestor is reached

    def faults(self) -> tuple[Condition, ...]:
        """Returns every condition that tells of something wrong, without repeats."""
        everything = [
            *self.conditions,
            *(c for parent in self.parents for c in parent.conditions),
            *(c for listener in self.listeners for c in listener.conditions),
        ]
        return tuple(dict.fromkeys(c for c in everything if c.severity == 2))


_BAD_WHEN_TRUE = frozenset({"Conflicted", "Overridden", "PartiallyInvalid", "NotSupported"})


@lru_cache(maxsize=1024)
def true(type_: str, reason: str | None = None, message: str = "") -> Condition:
    """Returns a condition that holds; the reason is the type's own name unless given."""
    return Condition(type_, "True", reason or type_, message)


def false(type_: str, reason: str, message: str, field: str = "") -> Condition:
    """Returns a condition that does not hold, with the field at fault."""
    return Condition(type_, "False", reason, message, field)
