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
    taken: dict[tuple[int, str], _Place] = {}
    for members in sources:
        free: list[Member] = []
        rivals: dict[tuple[int, str], _Place] = {}
        for one in members:
            before = taken.setdefault(one.place, _Place())
            condition = before.clash(one)
            if condition is not None:
                found[one.id] = condition
            else:
                free.append(one)
                rivals.setdefault(one.place, _Place()).add(one)
        for one in free:
            condition = rivals[one.place].clash(one)
            if condition is not None:
                found[one.id] = condition
            taken[one.place].add(one)
    return found


class _Place:
    """The listeners of one place, each found by what it could clash with: there may be thousands."""

    def __init__(self) -> None:
        self._count = 0
        self._protocols: set[str] = set()
        # The first two with a protocol, and of these with a hostname: one of them may be who asks.
        self._first: dict[tuple[str | None, ...], list[tuple[int, Member]]] = {}

    def add(self, member: Member) -> None:
        """Takes a listener in."""
        for key in ((member.protocol,), (member.protocol, member.spec.hostname)):
            kept = self._first.setdefault(key, [])
            if len(kept) < 2:
                kept.append((self._count, member))
        self._protocols.add(member.protocol)
        self._count += 1

    def clash(self, one: Member) -> Condition | None:
        """Returns what is to be said of a listener that cannot be told apart from another one here."""
        others = [each for key in self._keys(one) for each in self._first.get(key, ()) if each[1] is not one]
        return _clash(one, min(others, key=lambda each: each[0])[1]) if others else None

    def _keys(self, one: Member) -> Iterable[tuple[str | None, ...]]:
        for protocol in self._protocols:
            same = protocol == one.protocol
            by_name = one.protocol not in ("TCP", "UDP") if same else _by_sni(protocol) and _by_sni(one.protocol)
            yield (protocol, one.spec.hostname) if by_name else (protocol,)


def _clash(one: Member, other: Member) -> Condition:
    # Whose the other is must not be told across objects: they may be of different teams.
    who = f"listener {other.spec.name}" if other.owner == one.owner else "a listener that comes before"
    port = one.spec.port
    if other.protocol != one.protocol:
        message = f"{who} uses port {port} with protocol {other.spec.protocol}"
        return Condition("Conflicted", "True", "ProtocolConflict", message, f"{one.field}.protocol")
    if one.protocol in ("TCP", "UDP"):
        message = f"{who} has the same port {port}"
        return Condition("Conflicted", "True", "ListenerConflict", message, f"{one.field}.port")
    message = f"{who} has the same port {port} and hostname"
    return Condition("Conflicted", "True", "HostnameConflict", message, f"{one.field}.hostname")


def _by_sni(protocol: str) -> bool:
    """Says whether connections are told apart by the name in their TLS handshake."""
    known = PROTOCOLS.get(protocol)
    return known is not None and known.tls
