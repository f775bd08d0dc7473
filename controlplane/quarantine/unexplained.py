"""What Envoys reject without any object being at fault: it is not searched again, and confirms nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controlplane.quarantine.evidence import Watched
from controlplane.xds.events import Nack
from controlplane.xds.resources import Resource, Snapshot

Published = Callable[[str], Snapshot | None]

_MAX: Final = 1024


class Unexplained:
    """Versions of resources, with the names of the objects that they were made from; the newest of them."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._origins: dict[tuple[Watched, str], tuple[str, ...]] = {}

    def add(self, versions: Iterable[tuple[Watched, str]]) -> None:
        """Takes in versions that are published and that nothing explains."""
        for watched, version in versions:
            found = resource(self._published(watched.owner), watched)
            self._origins[watched, version] = tuple(found.origins) if found is not None else ()
        while len(self._origins) > _MAX:
            del self._origins[next(iter(self._origins))]

    def knows(self, nack: Nack) -> bool:
        """Says whether a rejection is one of these."""
        return any((Watched(nack.owner, nack.type_url, name), v) in self._origins for name, v in nack.versions.items())

    def doubted(self, owner: str) -> frozenset[str]:
        """Returns the names of the objects that something was made from that an owner's Envoys reject for now."""
        return frozenset(
            origin
            for (watched, version), origins in self._origins.items()
            if watched.owner == owner and version_of(self._published(owner), watched) == version
            for origin in origins
        )


def resource(snapshot: Snapshot | None, watched: Watched) -> Resource | None:
    """Returns a resource as a snapshot has it."""
    return snapshot.of_type(watched.type_url).get(watched.name) if snapshot is not None else None


def version_of(snapshot: Snapshot | None, watched: Watched) -> str | None:
    """Returns which version of a resource a snapshot has."""
    found = resource(snapshot, watched)
    return found.version if found is not None else None


def version_in(snapshots: Mapping[str, Snapshot | None], published: Published, watched: Watched) -> str | None:
    """Returns which version of a resource there is once these snapshots are published too."""
    own = watched.owner in snapshots
    return version_of(snapshots[watched.owner] if own else published(watched.owner), watched)
