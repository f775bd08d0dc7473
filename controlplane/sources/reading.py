"""Reads many manifests in helper processes, which a process may start before it loads whatever else it needs."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from controlplane.sources.content import MAX_FILE_BYTES, Content
from controlplane.sources.folder import Signature, is_big
from controlplane.sources.helper import HEADER_BYTES, Job, Part, pack_job, unpack_parts

_log = logging.getLogger(__name__)

BIG_FILES: Final = 500
BIG_BYTES: Final = 2 * 1024 * 1024
_MAX_HELPERS: Final = 4
_MAX_FRAME_BYTES: Final = 1 << 30
_READ_BYTES: Final = 1024 * 1024
_END_WITHIN_S: Final = 5.0


def begin(folder: str | os.PathLike[str], *, max_file_bytes: int = MAX_FILE_BYTES) -> Reading | None:
    """Starts to read a folder, if it is big and there is a core to spare; the result is for FileSource."""
    normal = os.path.normpath(folder)
    count = helpers_here()
    if count < 1 or not is_big(normal, files=BIG_FILES, size=BIG_BYTES):
        return None
    return start(normal, helpers=count, max_file_bytes=max_file_bytes)


def begin_files(files: Sequence[str], *, max_file_bytes: int = MAX_FILE_BYTES) -> Reading | None:
    """Starts to read files, if they are many and there is a core to spare."""
    count = helpers_here()
    if count < 1 or len(files) < BIG_FILES:
        return None
    return start(None, files, helpers=count, max_file_bytes=max_file_bytes)


def start(
    folder: str | None,
    files: Iterable[str] = (),
    *,
    helpers: int,
    max_file_bytes: int = MAX_FILE_BYTES,
    patience_s: float = 30.0,
) -> Reading | None:
    """Starts so many helpers on a folder, or on files; None if that cannot be done."""
    jobs = [Job(folder, tuple(files), number, helpers, max_file_bytes) for number in range(helpers)]
    reading = Reading(folder, patience_s=patience_s)
    try:
        for job in jobs:
            reading.add(job)
    except OSError as error:
        _log.warning("no helper processes, manifests are read in this one: %s", error)
        reading.close()
        return None
    return reading


def helpers_here() -> int:
    """How many helpers there are cores for, beside the one for whoever starts them; 0 if that is the only one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Not Linux.
        cores = os.cpu_count() or 1
    return min(cores - 1, _MAX_HELPERS)


@dataclass(slots=True)
class _Helper:
    process: subprocess.Popen[bytes]
    descriptor: int
    received: bytearray = field(default_factory=bytearray)


class Reading:
    """What helper processes have read so far. What they do not give, for whatever reason, is read by who asks."""

    def __init__(self, folder: str | None, *, patience_s: float) -> None:
        self.folder = folder
        self._patience_s = patience_s
        self._helpers: dict[int, _Helper] = {}
        self._found: dict[str, list[Part]] = {}

    def add(self, job: Job) -> None:
        """Starts a helper. OSError if that cannot be done."""
        # In a session of its own, so that Ctrl-C ends it with its parent and not before.
        command = (sys.executable, "-P", "-m", "controlplane.sources.helper")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        assert process.stdout is not None
        helper = _Helper(process, process.stdout.fileno())
        self._helpers[helper.descriptor] = helper
        try:
            with process.stdin as pipe:
                pipe.write(pack_job(job))
        except BrokenPipeError:
            pass  # It has ended already, which shows when it is read from.

    def content(self, path: str, signature: Signature) -> Content | None:
        """What a file of this signature holds, as soon as that is known; None if whoever asks is to read it."""
        while True:
            parts = self._found.get(path, [])
            known = parts and (len(parts) == parts[0].shares or any(each.signature != signature for each in parts))
            if known or not self._helpers:
                break
            self._receive()
        self._found.pop(path, None)
        return _join(parts, signature)

    def close(self) -> None:
        """Ends the helpers and forgets what they read."""
        self._found.clear()
        for helper in list(self._helpers.values()):
            self._end(helper)

    def _receive(self) -> None:
        """Takes in what has come, and waits until something has."""
        poll = select.poll()
        for descriptor in self._helpers:
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(self._patience_s * 1000)
        if not ready:
            _log.warning("helper processes have said nothing for %g s; manifests are read here", self._patience_s)
            for helper in list(self._helpers.values()):
                self._end(helper)
        for descriptor, _ in ready:
            self._receive_from(self._helpers[descriptor])

    def _receive_from(self, helper: _Helper) -> None:
        data = b""
        try:
            data = os.read(helper.descriptor, _READ_BYTES)
            helper.received += data
            while (frame := _next_frame(helper.received)) is not None:
                if not frame:
                    self._end(helper)
                    return
                for part in unpack_parts(frame):
                    self._found.setdefault(part.path, []).append(part)
        except (OSError, ValueError, TypeError, EOFError):
            data = b""
        if not data:
            code = self._end(helper)
            _log.warning("a helper process has ended (%s); the manifests that it had are read here", code)

    def _end(self, helper: _Helper) -> int | None:
        """Ends a helper; returns its exit code."""
        del self._helpers[helper.descriptor]
        process = helper.process
        if process.stdout is not None:
            process.stdout.close()
        process.kill()
        try:
            return process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None


def _next_frame(received: bytearray) -> bytes | None:
    """Takes a whole frame off the front; empty for the last one, None if there is none yet."""
    if len(received) < HEADER_BYTES:
        return None
    end = HEADER_BYTES + int.from_bytes(received[:HEADER_BYTES], "little")
    if end > _MAX_FRAME_BYTES:
        raise ValueError("not a frame")
    if len(received) < end:
        return None
    frame = bytes(received[HEADER_BYTES:end])
    del received[:end]
    return frame


def _join(parts: Sequence[Part], signature: Signature) -> Content | None:
    """The content of a file, of what several helpers have read of it."""
    if not parts or len(parts) != parts[0].shares or any(each.signature != signature for each in parts):
        return None
    if len(parts) == 1:
        return parts[0].content
    fault = next((each.content.fault for each in parts if each.content.fault is not None), None)
    pieces = (piece for each in parts for piece in each.content.pieces)
    return Content(() if fault else tuple(sorted(pieces, key=lambda piece: piece.number)), fault)
