"""What a Gateway's ports are bound to on this machine: pure, so that a clash is known before anything is started."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

DEFAULT_HOST: Final = "127.0.0.1"
PRIVILEGED: Final = 1024
OFFSET: Final = 10_000

Endpoint = tuple[str, int]
"""An IP address and the port that is bound on it."""

PortOf = tuple[str, int]
"""A Gateway (`NAMESPACE/NAME`) and the port of its listeners."""


class Wanted(NamedTuple):
    """What a Gateway asks for: the IP addresses of `spec.addresses`, and the ports of its listeners."""

    addresses: tuple[str, ...]
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Clash:
    """A port that a Gateway does not get, for `holder` (a Gateway with its port, or a process) has it."""

    gateway: str
    port: int
    endpoint: Endpoint
    holder: str

    def __str__(self) -> str:
        host, bound = self.endpoint
        shown = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        return f"Gateway {self.gateway}: port {self.port} (bound to {shown}) is held by {self.holder}"


@dataclass(frozen=True, slots=True)
class Bindings:
    """`bound` says where each port of each Gateway is; a port in `clashes` is nowhere."""

    bound: Mapping[PortOf, tuple[Endpoint, ...]] = field(default_factory=lambda: MappingProxyType({}))
    clashes: tuple[Clash, ...] = ()


def bind(gateways: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]) -> Bindings:
    """Returns where the ports of Gateways are bound in file mode.

    Each is given as `Wanted`. A port is bound on the Gateway's IP addresses, else on 127.0.0.1; one below 1024 has
    10,000 added, so that no privilege is needed. Who comes first in `gateways` (callers give the oldest first) keeps
    what a later one wants too.
    """
    bound: dict[PortOf, tuple[Endpoint, ...]] = {}
    held: dict[int, list[tuple[str, PortOf]]] = {}
    clashes: list[Clash] = []
    for gateway, (addresses, ports) in gateways.items():
        hosts = _hosts(addresses)
        for port in dict.fromkeys(ports):
            endpoints = tuple((host, bound_port(port)) for host in hosts)
            taken = [clash for endpoint in endpoints for clash in _clash((gateway, port), endpoint, held)]
            clashes += taken
            if not taken:
                bound[gateway, port] = endpoints
                for host, number in endpoints:
                    held.setdefault(number, []).append((host, (gateway, port)))
    return Bindings(MappingProxyType(bound), tuple(clashes))


def bound_port(port: int) -> int:
    """Returns the port that is bound for a listener's port."""
    return port + OFFSET if port < PRIVILEGED else port


def overlap(one: str, other: str) -> bool:
    """Says whether two IP addresses cannot both be bound to one port: they are equal, or one stands for all."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    # Envoy binds `::` for IPv6 alone, so the two families never meet.
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)


def _hosts(addresses: Iterable[str]) -> tuple[str, ...]:
    # Spelled in one way, so that two spellings of an address are seen to be one.
    return tuple(dict.fromkeys(str(ipaddress.ip_address(address)) for address in addresses)) or (DEFAULT_HOST,)


def _clash(who: PortOf, endpoint: Endpoint, held: Mapping[int, list[tuple[str, PortOf]]]) -> list[Clash]:
    host, number = endpoint
    holders = [holder for other, holder in held.get(number, []) if overlap(host, other)]
    return [Clash(who[0], who[1], endpoint, f"Gateway {gateway} (port {port})") for gateway, port in holders[:1]]
