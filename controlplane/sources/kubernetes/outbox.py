"""What has been read and is yet to be handed over: coalesced, and an object together with the Secrets it refers to."""

from __future__ import annotations

import marshal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.api.meta import ObjectKey
from controlplane.sources.changes import Changes, Origin, RawObject, SourceFault
from controlplane.sources.kubernetes.observed import Seen
from controlplane.sources.kubernetes.references import References

_ORIGIN: Final = Origin(file="")
_NOT_CONTENT: Final = frozenset({"apiVersion", "kind", "metadata", "status"})


@dataclass(slots=True)
class Entry:
    """What is kept of an object after it was handed over: enough to tell what changed."""

    version: str = ""
    """The newest `resourceVersion` that was seen."""
    digest: int | None = None
    """Of all but status and bookkeeping."""
    handed: bool = False
    seen: Seen | None = None
    """For kinds with a status; as of the version that was handed over."""


@dataclass(slots=True)
class _Upsert:
    raw: RawObject
    entry: Entry
    seen: Seen | None
    due: float
    """Until when it may wait for what it refers to."""
    needs: frozenset[ObjectKey]


def digest(document: Mapping[str, Any]) -> int:
    """Returns a number that differs where anything does that matters: not status, managedFields, resourceVersion.

    To be called when the latter two are gone. Lists and watches order the top-level fields differently.
    """
    content = [(name, document[name]) for name in sorted(document) if name not in _NOT_CONTENT]
    # The quickest way to bytes (version 2: the same for equal values), which are only ever compared in this process.
    return hash(marshal.dumps((document.get("apiVersion"), document["metadata"], content), 2))


class Outbox:
    """`upsert`, `remove` and `observe` put in, `take` takes out; `wake` is called when there is something to take."""

    def __init__(
        self,
        *,
        references: References,
        is_answered: Callable[[ObjectKey], bool],
        wake: Callable[[], None],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._references = references
        self._is_answered = is_answered
        self._patience_s = patience_s
        self._clock = clock
        self.wake = wake
        self._upserts: dict[ObjectKey, _Upsert] = {}
        self._taken: dict[ObjectKey, _Upsert] = {}
        self._removed: dict[ObjectKey, None] = {}
        self._observed: dict[ObjectKey, None] = {}
        self._seen_at: float | None = None

    def upsert(
        self,
        key: ObjectKey,
        document: Mapping[str, Any],
        entry: Entry,
        *,
        seen: Seen | None = None,
        needs: frozenset[ObjectKey] = frozenset(),
    ) -> None:
        """Puts in an object that is new or has changed. What it `needs` is looked for from now on."""
        before = self._upserts.get(key)
        due = before.due if before is not None else self._clock() + self._patience_s
        self._references.propose(key, needs)
        self._upserts[key] = _Upsert(RawObject(key, document, _ORIGIN), entry, seen, due, needs)
        if key in self._removed:
            # It was deleted and made anew: whoever takes changes has the one before.
            del self._removed[key]
            entry.handed = True
        self._note()

    def remove(self, key: ObjectKey, entry: Entry) -> None:
        """Puts in that an object is gone."""
        self._upserts.pop(key, None)
        self._taken.pop(key, None)
        self._references.propose(key, frozenset())
        if entry.handed:
            self._removed[key] = None
            self._note()
        else:
            self._references.settle(key)

    def observe(self, key: ObjectKey, entry: Entry, seen: Seen) -> None:
        """Puts in that nothing but the status of an object changed."""
        pending = self._upserts.get(key) or self._taken.get(key)
        if pending is not None:
            pending.seen = seen
            return
        entry.seen = seen
        self._observed[key] = None
        self.wake()

    @property
    def waiting(self) -> int:
        """How many objects are yet to be handed over."""
        return len(self._upserts) + len(self._removed)

    @property
    def waits(self) -> bool:
        """Whether an object waits for something that it refers to."""
        return any(not self._is_ready(upsert) for upsert in self._upserts.values())

    def due_in_s(self) -> float | None:
        """Returns how long until an object is not to wait any longer; None if none waits."""
        if not self._upserts:
            return None
        return max(0.0, min(upsert.due for upsert in self._upserts.values()) - self._clock())

    def take(self, *, faults: tuple[SourceFault, ...] = (), everything: bool = False) -> Changes | None:
        """Returns what is ready to be handed over, None if nothing is; to be followed by `taken`."""
        now = self._clock()
        ready = [each for each in self._upserts.items() if everything or each[1].due <= now or self._is_ready(each[1])]
        for key, upsert in ready:
            upsert.entry.handed = True
            del self._upserts[key]
        self._taken = dict(ready)
        for key, _ in ready:
            # What nothing refers to any more is removed by this, perhaps a Secret that was just taken.
            self._references.settle(key)
        for key in list(self._removed):
            self._references.settle(key)
        removed, self._removed = tuple(self._removed), {}
        upserted = tuple(upsert.raw for upsert in self._taken.values())
        if not upserted and not removed and not everything:
            return None
        seen_at, self._seen_at = self._seen_at, None
        if self._upserts:
            self._seen_at = min(each.due for each in self._upserts.values()) - self._patience_s
        return Changes(upserted, removed, faults, seen_at=seen_at)

    def taken(self) -> list[ObjectKey]:
        """Notes that what was taken is in the engine; returns the objects that are to be looked at for their status."""
        for key, upsert in self._taken.items():
            if upsert.seen is not None:
                upsert.entry.seen = upsert.seen
                self._observed[key] = None
        self._taken = {}
        return self.observed()

    def observed(self) -> list[ObjectKey]:
        """Takes the objects whose status changed."""
        found = list(self._observed)
        self._observed = {}
        return found

    def _note(self) -> None:
        if self._seen_at is None:
            self._seen_at = self._clock()
        self.wake()

    def _is_ready(self, upsert: _Upsert) -> bool:
        return all(self._is_answered(key) for key in upsert.needs)
