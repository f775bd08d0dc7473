"""The domains of each RouteConfiguration, in shards: one change has a shard assembled again, and not all of it."""

from __future__ import annotations

from typing import Final, NamedTuple

from controlplane.api.meta import ObjectKey
from controlplane.compile import hosts
from controlplane.graph import Derived, Graph
from controlplane.pipeline.attachments import SHARDS, Attachments, shard_of
from controlplane.pipeline.policies import Place

__all__ = ["SHARDS", "SHARDS_FROM", "Configuration", "Domains", "Shard"]

# Below, one shard has them all: to read so many hosts takes less than a tenth of a millisecond.
SHARDS_FROM: Final = 256

Configuration = tuple[ObjectKey, str]
"""A RouteConfiguration: of which Gateway, and its name."""
Owned = tuple[tuple[str, Place | None], ...]
"""Domains in their order, and whose each is; None: another connection's."""


class Shard(NamedTuple):
    """A share of the domains of a RouteConfiguration; all of them where there is no number."""

    configuration: Configuration
    number: int | None


class Domains:
    """Derived collections of domains. Which shard a domain is in is a function of the domain alone.

    Apart from the hosts, since most changes of routes leave their domains as they are.
    """

    def __init__(self, graph: Graph, attachments: Attachments) -> None:
        self._attachments = attachments
        self._sharded: Derived[Configuration, bool] = graph.derive("sharded", self._compute_sharded)
        self._domains: Derived[Shard, Owned] = graph.derive("domains of a shard", self._compute)

    def sharded(self, key: Configuration) -> bool:
        """Says whether a configuration has so many domains that they are in shards."""
        return self._sharded.get(key)

    def get(self, shard: Shard) -> Owned:
        """Returns the domains of a shard."""
        return self._domains.get(shard)

    def of(self, key: Configuration) -> Owned:
        """Returns all domains of a configuration."""
        numbers = range(SHARDS) if self.sharded(key) else (None,)
        return tuple(each for number in numbers for each in self._domains.get(Shard(key, number)))

    def _compute_sharded(self, key: Configuration) -> bool:
        return sum(len(self._attachments.domains.get(place)) for place in self._places(key)) >= SHARDS_FROM

    def _places(self, key: Configuration) -> list[Place]:
        gateway, name = key
        ids = self._attachments.serving.get(gateway).configurations.get(name, ())
        return [Place(gateway, id_) for id_ in dict.fromkeys(ids)]

    def _compute(self, shard: Shard) -> Owned:
        (gateway, _), number = shard
        places = self._places(shard.configuration)
        mine = {place.listener for place in places}
        hostnames = self._attachments.serving.get(gateway).hostnames
        found: dict[str, Place | None] = {}
        for place in places:
            listener = self._attachments.listener_of(place)
            if listener is None:
                continue
            owners = hostnames[listener.port, listener.transport]
            for domain in self._share(place, listener.hostname, number):
                owner = owners[hosts.most_specific(owners, domain) or hosts.ANY]
                if owner in mine:
                    found[domain] = Place(gateway, owner)
            if listener.protocol == "HTTPS":
                others = hosts.misdirected(listener.hostname, owners)
                found |= dict.fromkeys(each for each in others if number in (None, shard_of(each)))
        return tuple(sorted(found.items(), key=lambda each: each[0]))

    def _share(self, place: Place, hostname: str | None, number: int | None) -> set[str]:
        """Returns the domains of a listener that are in a shard, its own hostname among them."""
        own = (hostname or hosts.ANY).lower()
        if number is None:
            return {*self._attachments.domains.get(place), own}
        domains = self._attachments.domains_in_shard.get((place, number))
        return {*domains, own} if shard_of(own) == number else {*domains}
