"""Ties the state file to an engine: what it gives back at the start, and what is written to it as things change."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from controlplane.api.meta import ObjectKey
from controlplane.engine import Engine, Step
from controlplane.quarantine.entry import Entry
from controlplane.quarantine.quarantine import Quarantine
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.state import Fact, FactKind, Kept, Rejected, State

_WRITE_AFTER_S = 1.0


class Memory:
    """Used on the event loop; writes happen on a thread, one at a time and some time after the change."""

    def __init__(
        self, state: State, engine: Engine, quarantine: Quarantine, *, write_after_s: float = _WRITE_AFTER_S
    ) -> None:
        self._state = state
        self._engine = engine
        self._quarantine = quarantine
        self._write_after_s = write_after_s
        self._dirty: dict[ObjectKey, None] = {}
        self._facts: dict[tuple[FactKind, str], str] = {}
        self._rejections: set[ObjectKey] = set()  # of which there is something in the file
        self._filled_in: dict[ObjectKey, str] | None = None
        self._read_whole = False
        self._due: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def restore(self) -> Mapping[str, tuple[str, ...]]:
        """Gives the engine what the one before it knew; returns the addresses of host names among that."""
        objects = self._engine.pipeline.objects
        addresses = {host: tuple(text.split()) for host, text in self._state.facts("addresses").items()}
        for host, found in addresses.items():
            objects.resolved.set(host, found)
            self._facts["addresses", host] = " ".join(found)
        for uri, text in self._state.facts("key set").items():
            objects.key_sets.set(uri, text)
            self._facts["key set", uri] = text
        self._engine.recall = self._state.recall
        entries = {each.key: Entry(each.version, each.message) for each in self._state.rejected() if each.version}
        self._rejections = set(entries)
        self._quarantine.remember(entries, self._state.confirmed)
        self._quarantine.entries.observers.append(self._moved)
        return addresses

    def fill_in(self, changes: Changes) -> Changes:
        """Adds what files had that could not be read from the start: it stays, as it would have without a restart.

        It goes when its file can be read again and does not give it.
        """
        hiding = {fault.file for fault in changes.faults if fault.hides}
        given = {raw.key for raw in changes.upserted}
        self._read_whole = self._read_whole or changes.complete
        if self._filled_in is None:
            found = self._state.of_files(hiding)
            self._filled_in = {key: file for key, file in found.items() if key not in given}
            documents = self._state.documents(self._filled_in)
            added = (RawObject(key, text, Origin(self._filled_in[key])) for key, text in documents.items())
            return replace(changes, upserted=(*changes.upserted, *added))
        over = [key for key, file in self._filled_in.items() if key in given or file not in hiding]
        for key in over:
            del self._filled_in[key]
        gone = (key for key in over if key not in given)
        return replace(changes, removed=(*changes.removed, *gone)) if over else changes

    def note(self, step: Step) -> None:
        """Takes in what a step changed, to be written soon."""
        self._dirty |= dict.fromkeys((*step.changed, *step.accepted))
        if self._read_whole and self._engine.recall is not None:
            # From here on what is accepted is known first-hand, and what nobody gave is gone.
            self._engine.recall = None
            self._dirty |= dict.fromkeys(self._state.keys() - self._engine.origins.keys())
        self._schedule()

    async def close(self) -> None:
        """Writes what is left, and closes the file."""
        if self._due is not None:
            self._due.cancel()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.to_thread(self._state.save, *self._take())
        self._state.close()

    def _moved(self, keys: Collection[ObjectKey]) -> None:
        """What is confirmed, or what Envoys reject, has changed."""
        self._dirty |= dict.fromkeys(keys)
        self._schedule()

    def _schedule(self) -> None:
        if self._due is None and self._writing is None:
            self._due = asyncio.get_running_loop().call_later(self._write_after_s, self._write)

    def _write(self) -> None:
        self._due = None
        self._writing = asyncio.create_task(asyncio.to_thread(self._state.save, *self._take()), name="state")
        self._writing.add_done_callback(self._written)

    def _written(self, _: asyncio.Task[None]) -> None:
        self._writing = None
        if self._dirty:
            self._schedule()

    def _take(self) -> tuple[list[Kept], list[Fact], list[Rejected]]:
        """Takes what is to be written; what is shared with the thread is frozen."""
        kept = [self._kept(key) for key in self._dirty]
        rejected = [self._rejected(key) for key in self._dirty]
        self._dirty = {}
        before, self._facts = self._facts, self._known_facts()
        changed = [Fact(*key, text) for key, text in self._facts.items() if before.get(key) != text]
        facts = [*changed, *(Fact(*key, None) for key in before if key not in self._facts)]
        rejected = [each for each in rejected if each.key in self._rejections or each.version is not None]
        self._rejections = {each.key for each in rejected if each.version is not None} | (
            self._rejections - {each.key for each in rejected}
        )
        return kept, facts, rejected

    def _kept(self, key: ObjectKey) -> Kept:
        origin = self._engine.origins.get(key)
        accepted = self._engine.pipeline.objects.accepted.peek(key)
        return Kept(key, accepted, origin.file if origin is not None else "", self._quarantine.is_confirmed(key))

    def _rejected(self, key: ObjectKey) -> Rejected:
        entry = self._quarantine.entries.get(key)
        lasting = entry is not None and entry.until is None
        return Rejected(key, entry.version, entry.message) if entry is not None and lasting else Rejected(key, None)

    def _known_facts(self) -> dict[tuple[FactKind, str], str]:
        pipeline = self._engine.pipeline
        known: dict[tuple[FactKind, str], str] = {}
        for host in pipeline.wanted_hosts():
            known["addresses", host] = " ".join(pipeline.objects.resolved.peek(host) or ())
        for uri in pipeline.wanted_key_sets():
            known["key set", uri] = pipeline.objects.key_sets.peek(uri) or ""
        return {key: text for key, text in known.items() if text}
