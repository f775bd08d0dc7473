"""One search as it goes on at Envoys: which versions are suspected, what was before them, what is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from controlplane.api.meta import ObjectKey, Resource
from controlplane.api.version import version_of
from controlplane.engine import Step
from controlplane.pipeline.objects import Admitted, Verdict
from controlplane.quarantine.bystanders import Bystanders
from controlplane.quarantine.entry import Entry
from controlplane.quarantine.evidence import Evidence
from controlplane.quarantine.search import Search
from controlplane.quarantine.suspicion import exposed, is_guard, may_open, may_wait


@dataclass(frozen=True, slots=True)
class Suspect:
    """A version that is in force, and what was confirmed before it (None: nothing)."""

    object: Resource
    before: Resource | None


@dataclass(slots=True)
class Hunt:
    """`in_force` are the suspects that the engine has in force; the others stand back, as does what comes meanwhile."""

    suspects: dict[ObjectKey, Suspect]
    search: Search[ObjectKey]
    evidence: Evidence
    started_at: float
    in_force: frozenset[ObjectKey]
    newcomers: dict[ObjectKey, None] = field(default_factory=dict[ObjectKey, None])
    rounds: int = 0
    unconfirmed: Callable[[], Iterable[ObjectKey]] = tuple
    bystanders: Bystanders | None = None
    _free: dict[ObjectKey, Resource] = field(default_factory=dict[ObjectKey, Resource])
    _ways: frozenset[ObjectKey] | None = None

    def judge(self, key: ObjectKey, object_: Resource, accepted: Resource | None) -> Verdict | None:
        """Returns whether a version of an object may be in force at the moment."""
        suspect = self.suspects.get(key)
        if suspect is not None and suspect.object == object_:
            if key in self.in_force:
                return None
            message = self.search.convicted.get(key)
            return Verdict(message) if message is not None else self._held(key, object_, accepted)
        if self._free.get(key) is object_:
            return None
        if object_ == accepted or not may_wait(key) or (is_guard(key) and accepted is None):
            # A guard that is new may be what others that come, and do not wait, count on.
            return None
        self.newcomers[key] = None
        return self._held(key, object_, accepted)

    def next_trial(self) -> tuple[set[ObjectKey], dict[ObjectKey, Resource | None]]:
        """Moves to the trial that the search asks for; returns whom that concerns, and what stands in for whom."""
        wanted = self.search.trial
        moved = set(wanted ^ self.in_force)
        standing = {key: self.suspects[key].before for key in self.in_force - wanted if key in self.suspects}
        self.in_force = wanted
        self._ways = None
        # Whether a guard that stands back leaves something open depends on what is in force without it.
        held = (key for key in (*self.suspects, *self.newcomers) if is_guard(key) and key not in wanted)
        return moved | set(held), standing

    def outdated(
        self, changed: Iterable[ObjectKey], newest: Callable[[ObjectKey], Admitted | None]
    ) -> list[tuple[ObjectKey, Suspect]]:
        """Returns those of the suspects whose version is not the newest any more."""
        found = ((key, self.suspects.get(key), newest(key)) for key in changed)
        return [
            (key, suspect)
            for key, suspect, admitted in found
            if suspect is not None and (admitted is None or admitted.object != suspect.object or admitted.faults)
        ]

    def guards_aside(self) -> list[ObjectKey]:
        """Returns the guards that stand back, to be judged again: what is in force without them has changed."""
        self._ways = None
        return [key for key in self.suspects if is_guard(key) and key not in self.in_force]

    def let_go(self, changed: Iterable[ObjectKey], newest: Callable[[ObjectKey], Admitted | None]) -> list[ObjectKey]:
        """Returns what need not wait, when some have come that do: these do not any more.

        That is told only when all has been taken in that came at once, for some of it may count on the rest.
        """
        if self.bystanders is None or not any(key in self.newcomers for key in changed):
            return []
        found: list[ObjectKey] = []
        for key in self.bystanders.among(self.newcomers, self.suspects, self.evidence.owners()):
            del self.newcomers[key]
            admitted = newest(key)
            if admitted is not None and admitted.object is not None:
                self._free[key] = admitted.object
                found.append(key)
        return found

    def sentences(self, retry_at: float | None) -> dict[ObjectKey, Entry]:
        """Returns what is to be in quarantine; until `retry_at`, if any, whatever is undecided too.

        But for guards that would go back to an older version, which may let more through than what is asked for.
        """
        entries = {
            key: Entry(version_of(self.suspects[key].object), message) for key, message in self.search.convicted.items()
        }
        message = f"{self.search.message} (it was not found out in time whether that is for this object)"
        for key in self.search.undecided if retry_at is not None else ():
            suspect = self.suspects[key]
            if not is_guard(key) or suspect.before is None:
                entries[key] = Entry(version_of(suspect.object), message, retry_at)
        return entries

    def leave(self, key: ObjectKey) -> None:
        """Takes in that a suspected version is not the newest any more."""
        del self.suspects[key]
        self.search.leave(key)
        self.in_force -= {key}

    def join(self, suspects: Mapping[ObjectKey, Suspect], message: str) -> None:
        """Takes in more suspects, that have been in force in every trial."""
        more = {key: each for key, each in suspects.items() if key not in self.suspects}
        self.suspects |= more
        self.in_force |= more.keys()
        self.search.join(more, message)

    def _held(self, key: ObjectKey, object_: Resource, accepted: Resource | None) -> Verdict:
        if not is_guard(key) or accepted is not None:
            return Verdict()
        return Verdict(absent=not exposed(object_, self._open_ways()))

    def _open_ways(self) -> frozenset[ObjectKey]:
        """Returns what is in force that is new, or changed, and so may count on a guard that came with it."""
        if self._ways is None:
            found = (key for key in self.unconfirmed() if key not in self.suspects or key in self.in_force)
            self._ways = frozenset(key for key in (*found, *self.in_force) if may_open(key))
        return self._ways


def joined(first: Step | None, second: Step) -> Step:
    """Returns two steps as one, to be published at once."""
    if first is None:
        return second
    return replace(
        second,
        snapshots={**first.snapshots, **second.snapshots},
        statuses={**first.statuses, **second.statuses},
        changed=tuple(dict.fromkeys((*first.changed, *second.changed))),
        duration_s=first.duration_s + second.duration_s,
        accepted=tuple(dict.fromkeys((*first.accepted, *second.accepted))),
        superseded={**second.superseded, **first.superseded},
    )
