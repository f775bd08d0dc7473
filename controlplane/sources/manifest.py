"""One manifest: its documents, the objects that they give, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from controlplane.api.load import key_of
from controlplane.api.meta import ObjectKey
from controlplane.sources.changes import Origin, SourceFault
from controlplane.sources.content import MAX_FILE_BYTES, Content, Piece, chunks, read_bytes
from controlplane.sources.documents import Chunk, DocumentError
from controlplane.sources.folder import Signature

Document = Mapping[str, object]
Data = dict[bytes, object]
"""The data of documents, by the digest of their text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A document, without its data: what it gave when it was parsed."""

    origin: Origin
    objects: tuple[tuple[ObjectKey, Origin], ...] = ()
    faults: tuple[SourceFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a file."""

    signature: Signature | None = None
    entries: Mapping[bytes, Entry] = field(default_factory=dict[bytes, Entry])
    """By the digest of the text."""
    objects: Mapping[ObjectKey, Origin] = field(default_factory=dict[ObjectKey, Origin])
    faults: tuple[SourceFault, ...] = ()


def take_content(path: str, signature: Signature, content: Content, old: Manifest) -> tuple[Manifest, Data]:
    """The file as it is now, and the data of the documents that were parsed, by digest.

    Documents that were not parsed are as they are in `old`. Objects of `old` whose document cannot be read any more
    stay, unless another document gives them.
    """
    if content.fault is not None:
        return replace(old, signature=signature, faults=(SourceFault(path, 0, content.fault, hides=True),)), {}
    entries: dict[bytes, Entry] = {}
    objects: dict[ObjectKey, Origin] = {}
    faults: list[SourceFault] = []
    parsed: Data = {}
    whole = True
    for piece in content.pieces:
        entry = _entry(path, piece, old)
        entries[piece.digest] = entry
        if piece.parsed:
            parsed[piece.digest] = piece.data
        if entry.faults:
            faults += entry.faults
            whole = False
        for key, place in entry.objects:
            first = objects.setdefault(key, place)
            if first is not place:
                faults.append(already_defined(key, place, first))
    if not whole:
        objects = {**{key: place for key, place in old.objects.items() if key not in objects}, **objects}
    return Manifest(signature, entries, objects, tuple(faults)), parsed


def already_defined(key: ObjectKey, place: Origin, first: Origin) -> SourceFault:
    """What to say about an object that is written in two places."""
    return SourceFault(place.file, place.line, f"{key} is already defined at {first.file}:{first.line}")


def _entry(path: str, piece: Piece, old: Manifest) -> Entry:
    origin = Origin(path, piece.number, piece.line, piece.digest)
    if not piece.parsed:
        entry = old.entries[piece.digest]
        before = entry.origin
        return entry if (before.line, before.document_index) == (piece.line, piece.number) else _move(entry, origin)
    if piece.fault is not None:
        message, line, column = piece.fault
        return Entry(origin, faults=(SourceFault(path, line, message, column, hides=True),))
    objects: list[tuple[ObjectKey, Origin]] = []
    faults: list[SourceFault] = []
    for prefix, item in expand(piece.data):
        key = key_of(cast("Document", item)) if isinstance(item, dict) else None
        if key is None:
            what = _no_key(prefix, cast("object", item))
            faults.append(SourceFault(origin.file, origin.line, what, hides=True))
        else:
            objects.append((key, replace(origin, prefix=prefix) if prefix else origin))
    return Entry(origin, tuple(objects), tuple(faults))


def _no_key(prefix: str, item: object) -> str:
    where = f"{prefix}: " if prefix else ""
    if not isinstance(item, dict):
        return f"{where}expected a mapping with apiVersion, kind and metadata"
    document = cast("Document", item)
    metadata = document.get("metadata")
    for field_name in ("apiVersion", "kind"):
        if not isinstance(document.get(field_name), str):
            return f"{where}{field_name}: required field is missing"
    if not isinstance(metadata, dict):
        return f"{where}metadata: required field is missing"
    return f"{where}metadata.name: required field is missing"


def expand(document: object) -> Iterator[tuple[str, object]]:
    """The objects of a document with their paths in it: itself, or the items of a List; none for an empty document."""
    items = _items(document)
    if items is None:
        if document is not None:
            yield "", document
        return
    whole = cast("Document", document)
    shared = {"apiVersion": whole.get("apiVersion"), "kind": str(whole.get("kind")).removesuffix("List")}
    typed = shared["kind"] != ""
    for index, item in enumerate(items):
        # Items of a typed list, as the API server returns it, may leave out what they all have in common.
        filled = {**shared, **cast("Document", item)} if typed and isinstance(item, dict) else item
        yield f"items[{index}]", filled


def _items(document: object) -> list[object] | None:
    if not isinstance(document, dict):
        return None
    whole = cast("Document", document)
    items = whole.get("items")
    if not isinstance(items, list) or not str(whole.get("kind")).endswith("List"):
        return None
    return cast("list[object]", items)


def _move(entry: Entry, origin: Origin) -> Entry:
    """The same document at another place of its file."""
    shift = origin.line - entry.origin.line
    objects = tuple((key, replace(origin, prefix=place.prefix)) for key, place in entry.objects)
    faults = tuple(replace(fault, line=fault.line + shift) for fault in entry.faults)
    return Entry(origin, objects, faults)


def find_object(origin: Origin, document: object) -> Document | None:
    """The object of a document that an origin names."""
    if not origin.prefix:
        return cast("Document", document) if isinstance(document, dict) else None
    for prefix, item in expand(document):
        if prefix == origin.prefix and isinstance(item, dict):
            return cast("Document", item)
    return None


def find_text(origin: Origin) -> Chunk | None:
    """The text of a document, wherever in its file it stands now; None if it is gone or cannot be read."""
    try:
        data = read_bytes(origin.file, MAX_FILE_BYTES)
    except (OSError, DocumentError):
        return None
    found = list(chunks(origin.file, data))
    for chunk in found:
        if chunk.digest == origin.digest:
            return chunk
    if not origin.digest and origin.document_index < len(found):
        return found[origin.document_index]
    return None
