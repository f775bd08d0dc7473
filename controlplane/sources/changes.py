"""What sources yield: objects as they are written, where each one stands, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.api.meta import ObjectKey


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object is written."""

    file: str
    document_index: int = 0
    """Which document of the file, from 0."""
    line: int = 1
    """First line of the document, from 1, when it was read."""
    digest: bytes = b""
    """Of the document's text: finds the document again after others have moved it."""
    prefix: str = ""
    """Path of the object in its document; set for items of a List."""


@dataclass(frozen=True, slots=True)
class RawObject:
    """An object as it is written, not yet looked at."""

    key: ObjectKey
    document: Mapping[str, object]
    origin: Origin


@dataclass(frozen=True, slots=True)
class SourceFault:
    """Something that could not be read."""

    file: str
    line: int
    """From 1; 0 if the file as a whole is meant."""
    message: str
    column: int = 0
    """From 1; 0 if not known."""
    hides: bool = field(default=False, compare=False)
    """Whether objects may be missing because of it, that the file is still meant to give."""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "") + (f":{self.column}" if self.column else "")
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new since the last changes of the same source."""

    upserted: tuple[RawObject, ...] = ()
    removed: tuple[ObjectKey, ...] = ()
    faults: tuple[SourceFault, ...] = ()
    """All faults that there are now, not only new ones."""
    complete: bool = True
    """False if objects may be missing that exist, so that nothing may be concluded from their absence."""
    seen_at: float | None = field(default=None, compare=False)
    """When the first of what led to them was seen (`time.monotonic`); None if nobody has looked."""
