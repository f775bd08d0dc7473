"""Which versions may be at fault for what Envoy rejects: what has come into force since it was last acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from controlplane.api.meta import ObjectKey, Resource
from controlplane.engine import Engine
from controlplane.quarantine.evidence import Watched
from controlplane.quarantine.hunt import Suspect
from controlplane.quarantine.suspicion import Texts, in_order, is_risky, may_be_held, named
from controlplane.quarantine.unconfirmed import Unconfirmed
from controlplane.xds.events import Nack
from controlplane.xds.resources import Snapshot

Recall = Callable[[Mapping[ObjectKey, Resource]], Mapping[ObjectKey, Resource]]
"""Returns what Envoys had confirmed of objects when the process began, given what they are now."""
Published = Callable[[str], Snapshot | None]

_FEW: Final = 16
"""How many objects may be left out on suspicion alone, where Envoys may have them in force and nobody knows."""


class Suspects:
    """Looks at the engine; `recall` is what was confirmed when the process began, None where nobody knows."""

    def __init__(self, engine: Engine, unconfirmed: Unconfirmed) -> None:
        self.recall: Recall | None = None
        self.acked_at: Callable[[Nack], float] = lambda nack: 0.0
        self._engine = engine
        self._unconfirmed = unconfirmed
        self._settled: dict[str, Snapshot] = {}
        self._past: set[str] = set()  # whose Envoys may have something in force that nobody here has told them

    def newest(self, key: ObjectKey) -> Resource | None:
        """Returns the newest version of an object."""
        admitted = self._engine.pipeline.objects.peek(key)
        return admitted.object if admitted is not None else None

    def is_known_good(self, key: ObjectKey, version: Resource) -> bool:
        """Says whether Envoys had confirmed this version of an object when the process began."""
        return self.recall is not None and self.recall({key: version}).get(key) is version

    def settled(self, owner: str, snapshot: Snapshot | None) -> None:
        """Takes in that the Envoys of an owner have acknowledged everything that they are sent."""
        if snapshot is not None:
            self._settled[owner] = snapshot
            self._past.discard(owner)

    def gone(self, owner: str) -> None:
        """Forgets what the Envoys of an owner had: none is left."""
        self._settled.pop(owner, None)
        self._past.discard(owner)

    def of(self, nacks: Iterable[Nack], known: Mapping[ObjectKey, Suspect]) -> dict[ObjectKey, Suspect]:
        """Returns those of the objects that something rejected was made from, the most trustworthy first."""
        nacks = list(nacks)
        self._past |= {nack.owner for nack in nacks if nack.had and nack.owner not in self._settled}
        origins = {origin for nack in nacks for origin in nack.origins}
        found = (key for key in self._unconfirmed.waiting if str(key) in origins and key not in known)
        return self._checked(found, nacks)

    def wider(
        self, rejected: Iterable[Watched], published: Published, known: Mapping[ObjectKey, Suspect]
    ) -> dict[ObjectKey, Suspect]:
        """Returns further ones: whatever has come into force for these Envoys, or is part of what is rejected now."""
        rejected = list(rejected)
        found = {key for each in rejected for key in self._unconfirmed.of_owner(each.owner)}
        added: set[str] = set()
        for each in rejected:
            if each.owner in self._settled:
                now = _origins(published(each.owner), each)
                added |= now - _origins(self._settled[each.owner], each)
        if added:
            found |= {key for key, _ in self._engine.pipeline.objects.everything() if str(key) in added}
        return self._checked((key for key in found if key not in known), [])

    def _checked(self, keys: Iterable[ObjectKey], nacks: list[Nack]) -> dict[ObjectKey, Suspect]:
        objects = self._engine.pipeline.objects
        until = min(map(self.acked_at, nacks), default=0.0)
        found: dict[ObjectKey, Suspect] = {}
        unknown: list[ObjectKey] = []
        for key in keys:
            admitted, waiting = objects.peek(key), self._unconfirmed.waiting.get(key)
            if waiting is not None:
                waiting = waiting.acknowledged(until)
            in_force = objects.accepted.peek(key)
            if admitted is None or not admitted.good or in_force is None or admitted.object != in_force:
                continue
            if waiting is not None and not waiting.known:
                unknown.append(key)
            found[key] = Suspect(in_force, waiting.before if waiting is not None else None)
        self._recall(found, unknown)
        if self.recall is None and unknown and self._past:
            found = self._few(found, unknown, nacks)
        held = {k: each for k, each in found.items() if may_be_held(k, each.object, has_before=each.before is not None)}
        return {key: held[key] for key in in_order(held, self.newest, self._since)}

    def _since(self, key: ObjectKey) -> float:
        waiting = self._unconfirmed.waiting.get(key)
        return waiting.since if waiting is not None else 0.0

    def _recall(self, found: dict[ObjectKey, Suspect], unknown: Collection[ObjectKey]) -> None:
        if self.recall is None or not unknown:
            return
        recalled = self.recall({key: found[key].object for key in unknown})
        for key in unknown:
            before = recalled.get(key)
            if before is found[key].object:
                del found[key]
                self._unconfirmed.forget(key)  # The process before this one knew that Envoys take it.
            elif before is not None:
                found[key] = Suspect(found[key].object, before)

    def _few(
        self, found: dict[ObjectKey, Suspect], unknown: Collection[ObjectKey], nacks: Iterable[Nack]
    ) -> dict[ObjectKey, Suspect]:
        """Any of these may be in force at Envoys, who would lose it in a trial: only who is pointed at is tried."""
        aside = frozenset(unknown)
        texts = Texts(self.newest)
        pointed = {key for nack in nacks for key in named(aside, nack.message, text=texts.of)}
        risky = [key for key in aside - pointed if is_risky(key, self.newest(key))]
        few = pointed | set(risky[: max(0, _FEW - len(pointed))])
        return {key: each for key, each in found.items() if key not in aside or key in few}


def _origins(snapshot: Snapshot | None, each: Watched) -> frozenset[str]:
    found = snapshot.of_type(each.type_url).get(each.name) if snapshot is not None else None
    return frozenset(found.origins) if found is not None else frozenset()
