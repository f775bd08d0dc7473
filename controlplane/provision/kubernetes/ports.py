"""Which port an Envoy in a pod binds for a listener's port: pure, and told by the port alone.

So a listener that comes or goes moves no other, and needs no privilege: the Service in front has the listener's port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from controlplane.provision.binding import Bindings, Clash, Endpoint, PortOf

ADMIN_PORT: Final = 9901
"""On loopback, for the pod itself."""
READY_PORT: Final = 9902
"""Answers probes and scrapers."""
DRAIN_PORT: Final = 9903
"""Where the drain process tells the kubelet that clients have gone."""

_OFFSET: Final = 10_000
_LAST: Final = 65_535
_FIRST_UNPRIVILEGED: Final = 1024
_RESERVED_FROM: Final = 9900
HOSTS: Final = ("0.0.0.0",)


def container_port(port: int) -> int:
    """Returns the port that Envoy binds for a listener's port.

    It is 10,000 more; ports above 55535 go to the ports from 1024 to 9899, which are free then. The highest (from
    64412) stay as they are, as the room is used up: one of those and the port 10,000 below exclude each other.
    """
    if port + _OFFSET <= _LAST:
        return port + _OFFSET
    low = port - (_LAST - _OFFSET + 1) + _FIRST_UNPRIVILEGED
    return low if low < _RESERVED_FROM else port


def bind(gateways: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]], *, hosts: Sequence[str] = HOSTS) -> Bindings:
    """Returns where the ports of Gateways are bound in their pods; each Gateway has pods of its own.

    `hosts` are the addresses to bind: `0.0.0.0`, `::` or both. The addresses that a Gateway asks for are those of its
    Service, and of no concern here.
    """
    bound: dict[PortOf, tuple[Endpoint, ...]] = {}
    clashes: list[Clash] = []
    for gateway, (_, ports) in gateways.items():
        held: dict[int, int] = {}
        for port in dict.fromkeys(ports):
            number = container_port(port)
            holder = held.setdefault(number, port)
            if holder == port:
                bound[gateway, port] = tuple((host, number) for host in hosts)
            else:
                clashes.append(Clash(gateway, port, (hosts[0], number), f"port {holder} of the same Gateway"))
    return Bindings(MappingProxyType(bound), tuple(clashes))
