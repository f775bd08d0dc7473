"""Files as a source: the manifests of a folder, read whole once and then as they change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final

from controlplane.api.meta import ObjectKey
from controlplane.sources.changes import Changes, Origin, RawObject, SourceFault
from controlplane.sources.content import MAX_FILE_BYTES, parse, read_content
from controlplane.sources.documents import DocumentError
from controlplane.sources.folder import Listing, Signature, list_folder, sign
from controlplane.sources.manifest import Manifest, find_object, find_text, take_content
from controlplane.sources.places import Places
from controlplane.sources.reading import Reading, begin, begin_files
from controlplane.sources.watching import Hint, Notifier, Scope, hints

_Parsed = dict[tuple[str, bytes], object]
"""Data of documents, by file and digest."""

_MANY_FILES: Final = 100
_NOTHING: Final = Manifest()


class FileSource:
    """The manifests (`*.yaml`, `*.yml`, `*.json`) below a folder.

    Only documents whose text changed are parsed, and none are kept. What a file gave stays while the file cannot be
    read; of an object that is written in two files, the first in path order counts. A file that vanishes has `grace_s`
    to come back: editors and git remove a file before they write it anew.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        notifier: Notifier = "auto",
        grace_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        reading: Reading | None = None,
    ) -> None:
        """`reading` is what was begun on the folder before now (`reading.begin`)."""
        self._folder = os.path.normpath(folder)
        self._max_file_bytes = max_file_bytes
        self._notifier: Notifier = notifier
        self._grace_s = grace_s
        self._clock = clock
        self._reading = reading
        self._manifests: dict[str, Manifest] = {}
        self._leaving: dict[str, float] = {}
        self._places = Places()
        self._faulty: dict[str, tuple[SourceFault, ...]] = {}
        self._unreadable: tuple[str, ...] = ()
        self._said: tuple[tuple[SourceFault, ...], bool] = ((), False)

    def read(self) -> Changes:
        """All objects. What a file gave at an earlier call and what cannot be read now is not reported as removed."""
        begun, self._reading = self._reading, None
        if begun is not None and begun.folder != self._folder:
            begun.close()
            begun = None
        if begun is None:
            begun = begin(self._folder, max_file_bytes=self._max_file_bytes)
        before = set(self._places.keys())
        self._leaving.clear()
        files = self._differences(list_folder(self._folder), None)
        parsed: _Parsed = {}
        with contextlib.closing(begun) if begun is not None else contextlib.nullcontext() as reading:
            for _ in self._update(files, parsed, reading, reparse=True):
                pass
        raws = [self._raw(key, parsed) for key in sorted(self._places.keys())]
        removed = [key for key in before if self._places.winner(key) is None]
        return self._changes((raw for raw in raws if raw is not None), removed)

    async def watch(self, stop: asyncio.Event) -> AsyncGenerator[Changes, None]:
        """What changes from the last `read` on, until `stop` is set; what changed before this call is not missed."""
        due = hints(self._folder, stop, by=self._notifier, due_s=self._due_s)
        async with contextlib.aclosing(due) as found:
            async for hint in found:
                seen_at = self._seen_at(hint)
                # What takes long enough for others to notice is done elsewhere; nobody else uses this source meanwhile.
                many = len(hint.paths if hint.scope is Scope.PATHS else self._manifests) >= _MANY_FILES
                files = await asyncio.to_thread(self._suspects, hint) if many else self._suspects(hint)
                many = len(files) >= _MANY_FILES
                changes = await asyncio.to_thread(self._look, files) if many else self._look(files)
                if changes is not None:
                    yield replace(changes, seen_at=seen_at)

    def _suspects(self, hint: Hint) -> dict[str, Signature | None]:
        """The files to look at where a hint leads."""
        files = {path: sign(path) for path in hint.paths}
        if hint.scope is not Scope.PATHS:
            files |= self._differences(list_folder(self._folder), hint.scope)
        self._spare(files)
        return files

    def _look(self, files: Mapping[str, Signature | None]) -> Changes | None:
        """What is new in files; None if nothing is."""
        there = [path for path, signature in files.items() if signature is not None]
        begun = begin_files(there, max_file_bytes=self._max_file_bytes)
        parsed: _Parsed = {}
        before: dict[ObjectKey, Origin | None] = {}
        with contextlib.closing(begun) if begun is not None else contextlib.nullcontext() as reading:
            for key, place in chain(self._update(files, parsed, reading), self._release()):
                before.setdefault(key, place)
        upserted: list[RawObject] = []
        removed: list[ObjectKey] = []
        for key, old in before.items():
            new = self._places.winner(key)
            raw = None if new is None or _is_same(old, new) else self._raw(key, parsed)
            if raw is not None:
                upserted.append(raw)
            elif new is None and old is not None:
                removed.append(key)
        said = self._said
        changes = self._changes(upserted, removed)
        return changes if upserted or removed or said != self._said else None

    def _differences(self, listing: Listing, scope: Scope | None) -> dict[str, Signature | None]:
        """The files to look at: new or changed (all of them without a scope), and those that are gone."""
        self._unreadable = tuple(listing.unreadable)
        files: dict[str, Signature | None] = {
            path: each for path, each in listing.files.items() if scope is None or self._differs(path, each, scope)
        }
        for path in self._manifests:
            if path not in listing.files and not any(
                path.startswith(os.path.join(each, "")) for each in self._unreadable
            ):
                files[path] = None
        return files

    def _differs(self, path: str, now: Signature, scope: Scope) -> bool:
        known = self._manifests.get(path)
        if known is None or known.signature is None:
            return True
        # A known file that is written in place is looked at when its writer closes it, not half-way.
        return now != known.signature if scope is Scope.EVERYTHING else now[:2] != known.signature[:2]

    def _update(
        self,
        files: Mapping[str, Signature | None],
        parsed: _Parsed,
        reading: Reading | None,
        *,
        reparse: bool = False,
    ) -> Iterator[tuple[ObjectKey, Origin | None]]:
        """Reads files anew; yields each object that they give in another way than before, with its place until then."""
        for path, signature in files.items():
            old = self._manifests.pop(path, _NOTHING)
            new = _NOTHING
            if signature is not None:
                content = reading.content(path, signature) if reading is not None else None
                if content is None:
                    known = () if reparse else old.entries
                    content = read_content(path, max_bytes=self._max_file_bytes, known=known)
                new, documents = take_content(path, signature, content, old)
                self._manifests[path] = new
                for digest, document in documents.items():
                    parsed[path, digest] = document
            if new.faults:
                self._faulty[path] = new.faults
            elif old.faults:
                self._faulty.pop(path, None)
            for key in _changed(old, new):
                yield key, self._places.winner(key)
                self._places.put(key, path, new.objects.get(key))

    def _seen_at(self, hint: Hint) -> float:
        """When the first was seen of what is to be looked at now; a file that is gone vanished some time ago."""
        now = self._clock()
        vanished = (deadline - self._grace_s for deadline in self._leaving.values() if deadline <= now)
        return min(now if hint.seen_at is None else hint.seen_at, *vanished, now)

    def _due_s(self) -> float | None:
        """How long until a file that vanished counts as gone."""
        return max(0.0, min(self._leaving.values()) - self._clock()) if self._leaving else None

    def _spare(self, files: dict[str, Signature | None]) -> None:
        """Leaves out the files that vanished just now, and adds those that have not come back in time."""
        now = self._clock()
        for path, signature in list(files.items()):
            if signature is not None:
                self._leaving.pop(path, None)
            elif path in self._manifests and self._leaving.setdefault(path, now + self._grace_s) > now:
                del files[path]
        for path, deadline in list(self._leaving.items()):
            if deadline <= now:
                del self._leaving[path]
                # One that is there again but not looked at is being written.
                if sign(path) is None:
                    files[path] = None

    def _release(self) -> Iterator[tuple[ObjectKey, Origin | None]]:
        """What a vanished file gave and another file gives now has moved there, without any grace."""
        for path in self._leaving:
            old = self._manifests[path]
            moved = [key for key in old.objects if self._places.is_contested(key)]
            for key in moved:
                yield key, self._places.winner(key)
                self._places.put(key, path, None)
            if moved:
                kept = {key: place for key, place in old.objects.items() if key not in moved}
                self._manifests[path] = replace(old, objects=kept)

    def _raw(self, key: ObjectKey, parsed: _Parsed) -> RawObject | None:
        origin = self._places.winner(key)
        if origin is None:
            return None
        document = parsed.get((origin.file, origin.digest))
        if document is None:
            document = _parse_again(origin)
        found = find_object(origin, document)
        return None if found is None else RawObject(key, found, origin)

    def _changes(self, upserted: Iterable[RawObject], removed: Iterable[ObjectKey]) -> Changes:
        faults = [fault for found in self._faulty.values() for fault in found]
        faults += self._places.faults()
        faults += (SourceFault(path, 0, "cannot be listed") for path in self._unreadable)
        ordered = tuple(sorted(faults, key=lambda each: (each.file, each.line, each.column)))
        self._said = (ordered, not self._unreadable)
        return Changes(tuple(upserted), tuple(removed), *self._said)


def _changed(old: Manifest, new: Manifest) -> list[ObjectKey]:
    before, after = old.objects, new.objects
    if not before:
        return list(after)
    gone = [key for key in before if key not in after]
    return gone + [key for key, place in after.items() if before.get(key) is not place]


def _is_same(old: Origin | None, new: Origin) -> bool:
    """Whether an object is written as it was, in the same file; lines may have moved."""
    return old is new or (old is not None and (old.file, old.digest, old.prefix) == (new.file, new.digest, new.prefix))


def _parse_again(origin: Origin) -> object:
    """The data of a document that was parsed earlier; None if it is not there any more."""
    chunk = find_text(origin)
    if chunk is None:
        return None
    try:
        return parse(origin.file, chunk.data)
    except DocumentError:
        return None
