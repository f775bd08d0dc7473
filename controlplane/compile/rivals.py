"""HTTPRoutes and GRPCRoutes that want one hostname of a listener: who has it (Gateway API: GRPCRouteSpec.hostnames)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from controlplane.compile.hosts import candidates

K = TypeVar("K", bound=Hashable)


class Rival(NamedTuple, Generic[K]):
    """A route on the listener, and its domains there."""

    key: K
    kind: str
    domains: tuple[str, ...]


class Domains(Generic[K]):
    """Whose domains are whose, and which of them a further domain has names in common with."""

    def __init__(self) -> None:
        self._same: dict[str, K] = {}
        self._below: dict[str, K] = {}

    def add(self, domain: str, owner: K) -> None:
        """Takes note of a domain; the first owner stays."""
        self._same.setdefault(domain, owner)
        for pattern in candidates(domain):
            self._below.setdefault(pattern, owner)

    def meets(self, domain: str) -> K | None:
        """Returns the owner of a domain that covers this one, or that this one covers."""
        if domain in self._below:
            return self._below[domain]
        return next((self._same[pattern] for pattern in candidates(domain) if pattern in self._same), None)


def losers(rivals: Iterable[Rival[K]]) -> Mapping[K, K]:
    """Returns the routes that must not be accepted, each with one of the other kind that has its hostname.

    `rivals` come in the order of precedence: the oldest first, then by NAMESPACE/NAME.
    """
    taken: dict[str, Domains[K]] = {}
    lost: dict[K, K] = {}
    for rival in rivals:
        others = [domains for kind, domains in taken.items() if kind != rival.kind]
        found = (owner for domains in others for each in rival.domains if (owner := domains.meets(each)) is not None)
        winner = next(found, None)
        if winner is not None:
            lost[rival.key] = winner
            continue
        own = taken.setdefault(rival.kind, Domains())
        for domain in rival.domains:
            own.add(domain, rival.key)
    return lost
