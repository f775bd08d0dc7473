"""Which snapshot an owner has, as a short text that is the same on every replica that has the same."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.xds.resources import Resource, Snapshot

_Typed = Mapping[str, Resource]


@dataclass(slots=True)
class Versions:
    """`of` is made from the versions of resources; a type whose resources are the very same is not looked at anew."""

    snapshot: Callable[[str], Snapshot | None]
    clock: Callable[[], float] = time.monotonic
    _digests: dict[str, dict[str, tuple[_Typed, bytes]]] = field(
        default_factory=dict[str, dict[str, tuple[_Typed, bytes]]]
    )
    _published_at: dict[str, float] = field(default_factory=dict[str, float])

    def published(self, owners: Mapping[str, object]) -> None:
        """Takes in which owners have another snapshot than before; with None, those that are gone."""
        now = self.clock()
        for owner, snapshot in owners.items():
            if snapshot is None:
                self._digests.pop(owner, None)
                self._published_at.pop(owner, None)
            else:
                self._published_at[owner] = now

    def age_s(self, owner: str) -> float:
        """Returns for how long the owner has had its snapshot."""
        return self.clock() - self._published_at.get(owner, float("-inf"))

    def of(self, owner: str) -> str:
        """Returns the version of the owner's snapshot; one that is empty is as good as none."""
        snapshot = self.snapshot(owner) or Snapshot()
        before, after = self._digests.get(owner, {}), dict[str, tuple[_Typed, bytes]]()
        for type_url, resources in snapshot.resources.items():
            if not resources:
                continue
            known = before.get(type_url)
            after[type_url] = known if known is not None and known[0] is resources else (resources, _digest(resources))
        if after:
            self._digests[owner] = after
        else:
            self._digests.pop(owner, None)
        return hashlib.blake2b(b"".join(after[each][1] for each in sorted(after)), digest_size=8).hexdigest()


def _digest(resources: _Typed) -> bytes:
    # Versions are hashes of bytes that hold the name, so they suffice.
    versions: Iterable[str] = sorted(each.version for each in resources.values())
    return hashlib.blake2b("".join(versions).encode(), digest_size=16).digest()
