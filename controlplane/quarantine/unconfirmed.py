"""What is in force and not acknowledged yet, with what was before it: there must be something to go back to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from controlplane.api.meta import ObjectKey, Resource

_BETWEEN: Final = 4


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that waits to be acknowledged by the Envoys of `owners`.

    `before` is what was confirmed before it, None where nothing was; or, unless `known`, where only what outlives the
    process can tell. `between` are versions that were in force after that and before this one, each since when.
    """

    before: Resource | None
    owners: frozenset[str]
    since: float
    known: bool = True
    between: tuple[tuple[float, Resource], ...] = ()

    def acknowledged(self, until: float) -> Waiting:
        """Returns the same when it is known that Envoys have taken what they were sent until a moment."""
        taken = [version for since, version in self.between if since <= until]
        if not taken:
            return self
        left = tuple(each for each in self.between if each[0] > until)
        return replace(self, before=taken[-1], known=True, between=left)


@dataclass(slots=True)
class Unconfirmed:
    """The objects whose newest version in force nobody has confirmed; at most one entry for each object there is."""

    waiting: dict[ObjectKey, Waiting] = field(default_factory=dict[ObjectKey, Waiting])
    _of_owner: dict[str, set[ObjectKey]] = field(default_factory=dict[str, set[ObjectKey]])

    def took(
        self,
        superseded: Mapping[ObjectKey, Resource | None],
        owners: Iterable[str],
        now: float,
        *,
        current: Callable[[ObjectKey], Resource | None],
        known: bool = True,
    ) -> list[ObjectKey]:
        """Takes in versions that have come into force, and that what these owners are sent changes with.

        Returns those that need no confirmation: what nobody is sent, and what returns to what was confirmed.
        """
        whose = frozenset(owners)
        confirmed: list[ObjectKey] = []
        for key, before in superseded.items():
            old = self.waiting.get(key)
            if old is None:
                new = Waiting(before, whose, now, known)
            else:
                between = old.between if before is None else (*old.between[1 - _BETWEEN :], (old.since, before))
                new = Waiting(old.before, whose | old.owners, now, old.known, between)
            if not new.owners or (new.known and new.before is not None and new.before == current(key)):
                self.forget(key)
                confirmed.append(key)
                continue
            self.waiting[key] = new
            for owner in new.owners:
                self._of_owner.setdefault(owner, set()).add(key)
        return confirmed

    def forget(self, key: ObjectKey) -> Waiting | None:
        """Drops an object, and returns what was known of it."""
        old = self.waiting.pop(key, None)
        for owner in old.owners if old is not None else ():
            self._drop(owner, key)
        return old

    def confirm(
        self,
        owner: str,
        *,
        connected: Callable[[str], bool],
        until: float,
        doubted: Callable[[ObjectKey], bool] = lambda key: False,
    ) -> list[ObjectKey]:
        """Takes in that the Envoys of an owner have acknowledged what they were sent `until` a moment.

        Returns what is confirmed now: owners that have no Envoys are not waited for.
        """
        confirmed: list[ObjectKey] = []
        for key in list(self._of_owner.get(owner, ())):
            old = self.waiting[key]
            if doubted(key):
                continue
            if old.since > until:
                self.waiting[key] = old.acknowledged(until)
                continue
            left = frozenset(each for each in old.owners if each != owner and connected(each))
            if not left:
                self.forget(key)
                confirmed.append(key)
                continue
            self._drop(owner, key)
            self.waiting[key] = replace(old, owners=old.owners - {owner})
        return confirmed

    def owners(self) -> list[str]:
        """Returns the owners that something waits for."""
        return list(self._of_owner)

    def of_owner(self, owner: str) -> Iterable[ObjectKey]:
        """Returns what waits for the Envoys of an owner."""
        return self._of_owner.get(owner, ())

    def _drop(self, owner: str, key: ObjectKey) -> None:
        found = self._of_owner.get(owner)
        if found is not None:
            found.discard(key)
            if not found:
                del self._of_owner[owner]
