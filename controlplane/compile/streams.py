"""Which connections of a TLS, TCP or UDP listener go where (Gateway API: TLSRoute, TCPRoute, UDPRoute)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.compile.gateway import GatewayListener
from controlplane.compile.hosts import ANY
from controlplane.ir import StreamChain, WeightedBackend


@dataclass(frozen=True, slots=True)
class Attached:
    """A route on the listener: its origin, its domains there, and where its connections go."""

    origin: str
    domains: tuple[str, ...]
    backends: tuple[WeightedBackend, ...]


def chains(listener: GatewayListener, routes: Sequence[Attached]) -> tuple[StreamChain, ...]:
    """Returns the chains of a listener; `routes` come in the order of precedence, the oldest first.

    A TLS listener has a chain for each domain; on TCP and UDP the first route has everything.
    """
    found: dict[str, StreamChain] = {}
    for route in routes:
        for domain in route.domains:
            name = listener.id if domain == ANY else f"{listener.id}/{domain}"
            hostnames = () if domain == ANY else (domain,)
            chain = StreamChain(name, route.backends, hostnames, listener.certificates, route.origin)
            found.setdefault(domain, chain)
    return tuple(found.values())
