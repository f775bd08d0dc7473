"""Hostnames: how those of listeners and routes intersect, and which is the more specific (Gateway API: Hostname)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

ANY = "*"


def intersect(listener: str | None, route: Iterable[str]) -> tuple[str, ...]:
    """Returns the domains on which a listener serves a route; `*` stands for every one.

    Empty when they have nothing in common (Gateway API: HTTPRouteSpec.hostnames).
    """
    mine = (listener or ANY).lower()
    theirs = [host.lower() for host in route] or [ANY]
    common = (_narrower(mine, host) for host in theirs)
    return tuple(dict.fromkeys(host for host in common if host is not None))


def covers(pattern: str, domain: str) -> bool:
    """Says whether every name of `domain` (itself perhaps a wildcard) is one of `pattern`."""
    if pattern in (ANY, domain):
        return True
    return pattern.startswith("*.") and domain != ANY and domain.removeprefix("*").endswith(pattern[1:])


def most_specific(patterns: Collection[str], domain: str) -> str | None:
    """Returns the most specific of `patterns` (a set or a mapping: there may be thousands) that covers a domain."""
    return next((each for each in candidates(domain) if each in patterns), None)


def _narrower(one: str, other: str) -> str | None:
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def candidates(domain: str) -> tuple[str, ...]:
    """Returns every pattern that covers a domain, the most specific first: itself, its wildcards, `*`."""
    found = [domain]
    rest = domain.removeprefix("*.") if domain != ANY else ""
    while "." in rest:
        rest = rest.partition(".")[2]
        found.append(f"*.{rest}")
    if domain != ANY:
        found.append(ANY)
    return tuple(found)


def misdirected(listener: str | None, peers: Iterable[str]) -> tuple[str, ...]:
    """Returns the domains that an HTTPS listener must answer with 421: not its own, or those of a closer listener.

    A client may reuse a connection for another name (RFC 9110 §7.4); `peers` are the hostnames on the same port.
    """
    mine = (listener or ANY).lower()
    closer = [peer for peer in peers if peer != mine and covers(mine, peer)] if mine.startswith("*") else []
    return tuple(closer if mine == ANY else [ANY, *closer])
