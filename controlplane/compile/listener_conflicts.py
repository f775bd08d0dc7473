"""Listeners that cannot be told apart, in a Gateway and the ListenerSets that join it (Gateway API: listeners)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.api.gateway import Gateway, Listener
from controlplane.api.listenerset import ListenerSet
from controlplane.api.meta import ObjectKey
from controlplane.compile.protocols import PROTOCOLS
from controlplane.conditions import Condition


@dataclass(frozen=True, slots=True)
class Member:
    """A listener as it is written, by whom, and where."""

    owner: ObjectKey
    spec: Listener
    field: str

    @property
    def id(self) -> str:
        """The listener's name within the Gateway."""
        if self.owner.kind == "Gateway":
            return self.spec.name
        return f"{self.owner.namespace}/{self.owner.name}/{self.spec.name}"

    @property
    def protocol(self) -> str:
        return self.spec.protocol.upper()

    @property
    def place(self) -> tuple[int, str]:
        """Where the listener listens; others elsewhere are nothing to it."""
        known = PROTOCOLS.get(self.protocol)
        return self.spec.port, known.transport if known is not None else self.protocol


def members_of(source: Gateway | ListenerSet) -> list[Member]:
    """Returns the listeners of an object as it has them."""
    return [Member(source.key, spec, f"spec.listeners[{index}]") for index, spec in enumerate(source.spec.listeners)]


def conflicts(sources: Iterable[Sequence[Member]]) -> Mapping[str, Condition]:
    """Returns the Conflicted condition of each listener that must not be accepted, by its id.

    `sources` come in the order of precedence: a Gateway, then its ListenerSets, the oldest first. What one has, a later
    one cannot have; of two that conflict within one, neither is accepted (Gateway API: "handling indistinct
    listeners", ListenerSetSpec.listeners).
    """
    found: dict[str, Condition] = {}
    taken: dict[tuple[int, str], list[Member]] = {}
    for members in sources:
        free: dict[tuple[int, str], list[Member]] = {}
        for one in members:
            condition = _first(one, taken.get(one.place, ()))
            if condition is not None:
                found[one.id] = condition
            else:
                free.setdefault(one.place, []).append(one)
        for place, rivals in free.items():
            for one in rivals:
                condition = _first(one, rivals)
                if condition is not None:
                    found[one.id] = condition
            taken.setdefault(place, []).extend(rivals)
    return found


def _first(one: Member, others: Iterable[Member]) -> Condition | None:
    return next((clash for other in others if other is not one and (clash := _clash(one, other)) is not None), None)


def _clash(one: Member, other: Member) -> Condition | None:
    # Whose the other is must not be told across objects: they may be of different teams.
    who = f"listener {other.spec.name}" if other.owner == one.owner else "a listener that comes before"
    port = one.spec.port
    if other.protocol != one.protocol:
        if _by_sni(one) and _by_sni(other) and other.spec.hostname != one.spec.hostname:
            return None
        message = f"{who} uses port {port} with protocol {other.spec.protocol}"
        return Condition("Conflicted", "True", "ProtocolConflict", message, f"{one.field}.protocol")
    if one.protocol in ("TCP", "UDP"):
        message = f"{who} has the same port {port}"
        return Condition("Conflicted", "True", "ListenerConflict", message, f"{one.field}.port")
    if other.spec.hostname == one.spec.hostname:
        message = f"{who} has the same port {port} and hostname"
        return Condition("Conflicted", "True", "HostnameConflict", message, f"{one.field}.hostname")
    return None


def _by_sni(member: Member) -> bool:
    """Says whether connections are told apart by the name in their TLS handshake."""
    known = PROTOCOLS.get(member.protocol)
    return known is not None and known.tls
