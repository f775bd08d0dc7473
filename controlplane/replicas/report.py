"""What a follower tells of its clients: everything once, then what has changed, gathered for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from controlplane.replicas.messages import Clients, batches
from controlplane.replicas.versions import Versions
from controlplane.xds.events import ClientSummary, Nack
from controlplane.xds.feed import Feed

_BASE_BYTES = 200
_TYPE_BYTES = 200


@dataclass(slots=True)
class Report:
    """`touch` says of which owner something may have changed, `take` returns the messages that say what has."""

    feed: Feed
    nacks: Callable[[], Iterable[Nack]]
    versions: Versions
    _dirty: dict[str, None] = field(default_factory=dict[str, None])
    _told: dict[str, dict[int, ClientSummary]] = field(default_factory=dict[str, "dict[int, ClientSummary]"])
    _nacks: dict[tuple[str, str], Nack] = field(default_factory=dict[tuple[str, str], Nack])
    _versions: dict[str, str] = field(default_factory=dict[str, str])

    def touch(self, owners: Iterable[str]) -> None:
        """Has owners looked at."""
        self._dirty.update(dict.fromkeys(owners))

    def touch_all(self) -> None:
        """Has every owner looked at that has clients."""
        self.touch(self.feed.owners())

    @property
    def behind(self) -> bool:
        """Whether clients have moved of which nothing else is to be said, taken together: they are told of in time."""
        return bool(self.feed.owners())

    def take(self) -> Iterator[Clients]:
        """Yields what is to be told, and takes it for told."""
        owners, self._dirty = list(self._dirty), {}
        changed: list[ClientSummary] = []
        gone: list[int] = []
        versions: dict[str, str] = {}
        for owner in owners:
            self._look(owner, changed, gone, versions)
        nacks = self._new_nacks(owners)
        if not (changed or gone or versions or nacks):
            return
        # Rejections first: who is told that a client rejects something asks what.
        yield Clients(gone=tuple(gone), nacks=tuple(nacks))
        # Versions last: until they come, these clients do not count as having what is newest.
        for batch in batches(changed, _size):
            yield Clients(changed=batch)
        yield Clients(versions=versions)

    def _look(self, owner: str, changed: list[ClientSummary], gone: list[int], versions: dict[str, str]) -> None:
        told = self._told.setdefault(owner, {})
        moved, over = self.feed.take(owner)
        gone.extend(number for number in over if told.pop(number, None) is not None)
        for client in moved:
            # How long it has been unsettled is counted on by who is told that it is.
            before, timeless = told.get(client.number), replace(client, unsettled_s=0.0)
            # Since when one that is not settled has not been may be another time than was told.
            if before != timeless or not client.settled:
                told[client.number] = timeless
                changed.append(client)
        if not told:
            del self._told[owner]
            self._versions.pop(owner, None)
            return
        version = self.versions.of(owner)
        if self._versions.get(owner) != version:
            self._versions[owner] = versions[owner] = version

    def _new_nacks(self, owners: Iterable[str]) -> list[Nack]:
        among = frozenset(owners)
        found = {(nack.owner, nack.type_url): nack for nack in self.nacks() if nack.owner in among}
        new = [nack for key, nack in found.items() if nack.owner in self._told and self._nacks.get(key) != nack]
        self._nacks.update(((nack.owner, nack.type_url), nack) for nack in new)
        self._nacks = {key: nack for key, nack in self._nacks.items() if key[0] in self._told}
        return new


def _size(client: ClientSummary) -> int:
    rejected = sum(len(name) for each in client.types.values() for name in each.rejected)
    return _BASE_BYTES + _TYPE_BYTES * len(client.types) + len(client.node_id) + rejected
