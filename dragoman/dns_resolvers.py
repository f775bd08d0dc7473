"""Makes what asks the DNS: of the servers that are given, or as the machine is set up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dns.asyncresolver


def resolvers(nameservers: Sequence[tuple[str, int]]) -> list[dns.asyncresolver.Resolver]:
    """Returns one for each server (host, port); without any, the machine's own.

    Raises `dns.exception.DNSException` where the machine knows of none.
    """
    # Only here: it takes a while to load, and many never ask for a name.
    import dns.asyncresolver

    if not nameservers:
        return [dns.asyncresolver.Resolver()]
    made: list[dns.asyncresolver.Resolver] = []
    for host, port in nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [host]
        resolver.port = port
        made.append(resolver)
    return made
