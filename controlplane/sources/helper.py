"""A helper process that reads and parses its share of many manifests, ahead of whoever started it."""

from __future__ import annotations

import gc
import marshal
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from controlplane.sources.content import MAX_FILE_BYTES, Content, Piece, TextFault, read_content
from controlplane.sources.folder import Signature, list_folder, sign

HEADER_BYTES: Final = 8
# Several helpers share a file of many documents.
_SHARED_BYTES: Final = 1024 * 1024
_FRAME_BYTES: Final = 128 * 1024
# How far it goes ahead of its reader, in bytes of frames; about those of the texts.
_AHEAD_BYTES: Final = 64 * 1024 * 1024


class Job(NamedTuple):
    """What one helper is to read: of the folder, or of the files that are named, its share."""

    folder: str | None
    files: tuple[str, ...]
    number: int
    """Which of the helpers, from 0 ..."""
    helpers: int
    """... of so many."""
    max_file_bytes: int = MAX_FILE_BYTES


class Part(NamedTuple):
    """What one helper has read of a file."""

    path: str
    signature: Signature
    """From before it was read."""
    shares: int
    """How many helpers read this file."""
    content: Content


def pack_job(job: Job) -> bytes:
    """A job in bytes."""
    return marshal.dumps(tuple(job))


def unpack_parts(frame: bytes | bytearray | memoryview) -> list[Part]:
    """The parts in one frame, without its header."""
    return [
        Part(path, signature, shares, Content(tuple(map(_unpack_piece, pieces)), fault))
        for path, signature, shares, pieces, fault in marshal.loads(frame)  # noqa: S302  (from our own child)
    ]


def _unpack_piece(fields: tuple[int, int, bytes, object, tuple[str, int, int] | None]) -> Piece:
    number, line, digest, data, fault = fields
    return Piece(number, line, digest, True, data, fault if fault is None else TextFault(*fault))


def _pack_part(part: Part) -> tuple[object, ...]:
    # `marshal` takes plain tuples only. It is several times faster than anything else, and equal strings of a frame
    # stay one string.
    pieces = tuple(
        (each.number, each.line, each.digest, each.data, each.fault and tuple(each.fault))
        for each in part.content.pieces
    )
    return part.path, part.signature, part.shares, pieces, part.content.fault


def read_parts(job: Job) -> Iterator[Part]:
    """The parts of the files of a job, in path order."""
    for number, (path, signature) in enumerate(_files(job)):
        shared = signature[2] > _SHARED_BYTES and not path.endswith(".json")
        if shared:
            content = read_content(path, max_bytes=job.max_file_bytes, wanted=_every(job.number, job.helpers))
            yield Part(path, signature, job.helpers, content)
        elif number % job.helpers == job.number:
            yield Part(path, signature, 1, read_content(path, max_bytes=job.max_file_bytes))


def _files(job: Job) -> Iterable[tuple[str, Signature]]:
    if job.folder is not None:
        return list_folder(job.folder).files.items()
    return ((path, signature) for path in job.files if (signature := sign(path)) is not None)


def _every(number: int, step: int) -> Callable[[int], bool]:
    return lambda each: each % step == number


class _Out:
    """Frames on their way to the reader, who may not be there yet: what the pipe does not take waits here."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._batch: list[tuple[object, ...]] = []
        self._batched = 0
        os.set_blocking(descriptor, False)

    def add(self, part: Part) -> None:
        """Takes in a part. Those of one frame share their strings."""
        self._batch.append(_pack_part(part))
        self._batched += part.signature[2]
        if self._batched >= _FRAME_BYTES:
            self._pack()
            self._write(until=_AHEAD_BYTES)

    def end(self) -> None:
        """Hands over everything, and says that this is all."""
        self._pack()
        self._waiting += bytes(HEADER_BYTES)
        self._write(until=0)

    def _pack(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        try:
            frame = marshal.dumps(batch)
        except ValueError:
            # Data that is nested too deeply for this: the reader reads those files itself.
            return
        if batch:
            self._waiting += len(frame).to_bytes(HEADER_BYTES, "little") + frame

    def _write(self, *, until: int) -> None:
        while self._waiting:
            try:
                del self._waiting[: os.write(self._descriptor, self._waiting)]
            except BlockingIOError:
                if len(self._waiting) <= until:
                    return
                os.set_blocking(self._descriptor, True)
                try:
                    del self._waiting[: os.write(self._descriptor, self._waiting[:_FRAME_BYTES])]
                finally:
                    os.set_blocking(self._descriptor, False)


def main() -> None:
    """Reads a job from standard input, writes frames of parts to standard output."""
    # It does not live long enough for a collection to be worth its time.
    gc.disable()
    job = Job(*marshal.loads(sys.stdin.buffer.read()))  # noqa: S302  (from our own parent)
    out = _Out(sys.stdout.fileno())
    try:
        for part in read_parts(job):
            out.add(part)
        out.end()
    except BrokenPipeError:
        pass  # Nobody wants it any more.
    # Taking down what has been built takes longer than leaving it to the kernel.
    os._exit(0)


if __name__ == "__main__":
    main()
