"""Listeners of one port whose hostnames overlap: clients may mix them up (Gateway API: OverlappingTLSConfig)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from controlplane.compile.gateway import GatewayListener
from controlplane.compile.hosts import ANY, candidates
from controlplane.conditions import Condition


def overlaps(listeners: Iterable[GatewayListener]) -> Mapping[str, Condition]:
    """Returns the condition of each listener whose hostname overlaps another's on its port, by its id.

    It is a warning: a request that comes over a connection of the other listener is answered with 421.
    """
    members = [each for each in listeners if each.accepted and each.ends_tls]
    ports: dict[int, _Hostnames] = {}
    for each in members:
        ports.setdefault(each.port, _Hostnames()).add(each)
    found = ((each, ports[each.port].other(each)) for each in members)
    return {each.id: _overlap(each, other) for each, other in found if other is not None}


class _Hostnames:
    """The listeners of a port, each found by the hostnames that overlap its own: there may be thousands."""

    def __init__(self) -> None:
        self._of: dict[str, GatewayListener] = {}
        # The first two that a hostname covers: one of them may be who asks.
        self._below: dict[str, list[GatewayListener]] = {}

    def add(self, listener: GatewayListener) -> None:
        """Takes a listener in; none of those that are accepted has the hostname of another."""
        hostname = _hostname(listener)
        self._of[hostname] = listener
        for pattern in candidates(hostname):
            below = self._below.setdefault(pattern, [])
            if len(below) < 2:
                below.append(listener)

    def other(self, listener: GatewayListener) -> GatewayListener | None:
        """Returns a listener whose hostname is covered by that of this one, or the closest that covers it."""
        hostname, *above = candidates(_hostname(listener))
        found = chain(self._below[hostname], (self._of[each] for each in above if each in self._of))
        return next((each for each in found if each.id != listener.id), None)


def _hostname(listener: GatewayListener) -> str:
    return (listener.hostname or ANY).lower()


def _overlap(listener: GatewayListener, other: GatewayListener) -> Condition:
    who = f"listener {other.name}" if other.owner == listener.owner else "a listener of another object"
    message = f"{who} has an overlapping hostname; requests over the wrong connection are answered with 421"
    return Condition("OverlappingTLSConfig", "True", "OverlappingHostnames", message)
