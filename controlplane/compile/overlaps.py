"""Listeners of one port whose hostnames overlap: clients may mix them up (Gateway API: OverlappingTLSConfig)."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.compile.gateway import GatewayListener
from controlplane.compile.hosts import ANY, covers
from controlplane.conditions import Condition


def overlap(listener: GatewayListener, others: Iterable[GatewayListener]) -> Condition | None:
    """Returns the condition of a listener whose hostname overlaps another's on its port; None where none does.

    It is a warning: a request that comes over a connection of the other listener is answered with 421.
    """
    if not (listener.accepted and listener.ends_tls):
        return None
    mine = (listener.hostname or ANY).lower()
    for other in others:
        if other.id == listener.id or other.port != listener.port or not (other.accepted and other.ends_tls):
            continue
        theirs = (other.hostname or ANY).lower()
        if covers(mine, theirs) or covers(theirs, mine):
            who = f"listener {other.name}" if other.owner == listener.owner else "a listener of another object"
            message = f"{who} has an overlapping hostname; requests over the wrong connection are answered with 421"
            return Condition("OverlappingTLSConfig", "True", "OverlappingHostnames", message)
    return None
