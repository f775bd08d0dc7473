"""What a file holds: its documents as plain data, each with its place. Light to import: helper processes begin here."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator
from typing import Final, NamedTuple

from controlplane.sources.documents import Chunk, DocumentError, parse_json, parse_yaml, split

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024


class TextFault(NamedTuple):
    """What is wrong with a document's text."""

    message: str
    line: int
    """In the file, from 1."""
    column: int
    """From 1; 0 if not known."""


class Piece(NamedTuple):
    """One document that is not blank."""

    number: int
    """Which document of the file, from 0; blank ones count."""
    line: int
    """Its first line in the file, from 1."""
    digest: bytes
    """Of its text."""
    parsed: bool
    """False if its data was not wanted."""
    data: object = None
    fault: TextFault | None = None


class Content(NamedTuple):
    """The documents of a file, or why there are none."""

    pieces: tuple[Piece, ...] = ()
    fault: str | None = None


def _everything(_: int) -> bool:
    return True


def read_content(
    path: str,
    *,
    max_bytes: int = MAX_FILE_BYTES,
    known: Container[bytes] = (),
    wanted: Callable[[int], bool] = _everything,
) -> Content:
    """Reads a file. Documents of `known` digests are not parsed; those whose number is not `wanted` are left out."""
    try:
        data = read_bytes(path, max_bytes)
    except OSError as error:
        return Content(fault=error.strerror or str(error))
    except DocumentError as error:
        return Content(fault=error.message)
    return Content(
        tuple(
            piece
            for number, chunk in enumerate(chunks(path, data))
            if wanted(number) and (piece := _piece(path, number, chunk, known)) is not None
        )
    )


def _piece(path: str, number: int, chunk: Chunk, known: Container[bytes]) -> Piece | None:
    digest = chunk.digest
    if digest in known:
        return Piece(number, chunk.line, digest, parsed=False)
    if chunk.blank:
        return None
    try:
        return Piece(number, chunk.line, digest, True, parse(path, chunk.data))
    except DocumentError as error:
        fault = TextFault(error.message, chunk.line + error.line - 1, error.column)
        return Piece(number, chunk.line, digest, True, None, fault)


def read_bytes(path: str, max_bytes: int) -> bytes:
    """The bytes of a file; DocumentError if there are too many."""
    # Without the layers of `open`, which for ten thousand small files take longer than the kernel does.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts: list[bytes] = []
        left = max_bytes + 1
        while left and (part := os.read(descriptor, min(left, _READ_BYTES))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if not left:
        raise DocumentError(f"larger than {max_bytes // 1024 // 1024} MiB")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def chunks(path: str, data: bytes) -> Iterator[Chunk]:
    """The documents of a file, as text."""
    return iter((Chunk(data, 1),)) if path.endswith(".json") else split(data)


def parse(path: str, data: bytes) -> object:
    """The data of a document of this file."""
    return parse_json(data) if path.endswith(".json") else parse_yaml(data)
