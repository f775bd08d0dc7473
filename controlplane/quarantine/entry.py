"""What is known of an object in quarantine, and how long searches for such may take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.api.meta import ObjectKey, Resource
from controlplane.api.version import version_of
from controlplane.pipeline.objects import Verdict

_log = logging.getLogger(__name__)

_LONGEST: Final = 1000
_MAX_ANNOUNCED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a search may take; what is not found out by then stays out of force for `retry_s`."""

    rounds: int = 400
    seconds: float = 30.0
    round_s: float = 6.0
    """How long an Envoy may take to answer: it may have to wait for clusters to warm."""
    straggler_s: float = 0.25
    """How long others are waited for when one has accepted a trial."""
    retry_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of an object that is not to be in force, and why."""

    version: str
    message: str
    until: float | None = None  # when to try it again: it was not found out whether it is at fault


class Entries(dict[ObjectKey, Entry]):
    """What is in quarantine, by object; `observers` hear, when it is time to `tell`, what has changed for which."""

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[Callable[[Collection[ObjectKey]], None]] = []
        self._moved: dict[ObjectKey, None] = {}
        self._announced: dict[ObjectKey, Entry] = {}

    def verdict(self, key: ObjectKey, object_: Resource) -> Verdict | None:
        """Returns why a version is in quarantine; another one than that which is ends it."""
        entry = self.get(key)
        announced = self._announced.get(key)
        if announced is not None and announced.version == version_of(object_):
            self.enter({key: announced})
            return Verdict(announced.message)
        if entry is None:
            return None
        if entry.version == version_of(object_):
            return Verdict(entry.message)
        _log.info("%s has changed since Envoy rejected it: its newest version is tried", key)
        self.forget(key)
        return None

    def announce(self, key: ObjectKey, entry: Entry) -> None:
        """Takes in that a version that may be yet to come is at fault."""
        self._announced[key] = entry
        while len(self._announced) > _MAX_ANNOUNCED:
            del self._announced[next(iter(self._announced))]

    def enter(self, entries: Mapping[ObjectKey, Entry]) -> None:
        """Takes versions into quarantine."""
        for key, entry in entries.items():
            _log.error("%s is not in force as it is: Envoy rejects it: %s", key, entry.message)
        self.update(entries)
        self.note(entries)

    def forget(self, key: ObjectKey) -> None:
        """Lets an object out."""
        if self.pop(key, None) is not None:
            self._moved[key] = None

    def keep(self, exists: Callable[[ObjectKey], bool]) -> None:
        """Lets out what is no more."""
        for key in [key for key in self if not exists(key)]:
            self.forget(key)

    def due(self, now: float) -> list[ObjectKey]:
        """Lets out what is to be tried again, and returns it."""
        again = [key for key, entry in self.items() if entry.until is not None and entry.until <= now]
        for key in again:
            self.forget(key)
        return again

    def note(self, keys: Iterable[ObjectKey]) -> None:
        """Takes in for which objects something has changed."""
        self._moved |= dict.fromkeys(keys)

    def tell(self) -> None:
        """Tells the observers."""
        if self._moved:
            moved, self._moved = self._moved, {}
            for told in self.observers:
                told(moved)


def tidy(message: str) -> str:
    """What Envoy says, fit for a sentence."""
    words = " ".join(message.split()).rstrip(".")
    return words if len(words) <= _LONGEST else words[:_LONGEST] + "…"
