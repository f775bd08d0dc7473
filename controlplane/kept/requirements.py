"""The JWT requirements that Envoys were sent, written at once: a control plane that is killed must not forget them.

The kept snapshot follows some time after a change. If it alone told what routes in force may name, a requirement that
was new when the control plane was killed, and was replaced before it came back, would be gone before those routes are.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from controlplane.xds.resources import EXTENSION_CONFIG, Snapshot

_log = logging.getLogger(__name__)

_SUFFIX: Final = ".jwt"
_MAX_BYTES: Final = 16 * 1024 * 1024


class Requirements:
    """A folder with a file for each owner: its name in the first line, then the extension that it was sent.

    It need not outlive the machine: Envoys that know of what is in it would not, either.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        """`name` is that of the extension."""
        self._folder = folder
        self._name = name
        self._written: dict[str, bytes] = {}

    def load(self) -> dict[str, bytes]:
        """Returns the extensions by owner; what cannot be read is left out."""
        found: dict[str, bytes] = {}
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                if path.stat().st_size <= _MAX_BYTES:
                    owner, _, body = path.read_bytes().partition(b"\n")
                    found[owner.decode()] = body
            except (OSError, UnicodeDecodeError) as error:
                _log.warning("%s cannot be read: %s", path, error)
        self._written = dict(found)
        return found

    def note(self, snapshots: Mapping[str, Snapshot | None]) -> None:
        """Takes in what is about to be published; None is of an owner that is gone."""
        for owner, snapshot in snapshots.items():
            extension = None if snapshot is None else snapshot.of_type(EXTENSION_CONFIG).get(self._name)
            body = None if extension is None else extension.body
            if self._written.get(owner) == body:
                continue
            try:
                self._write(owner, body)
            except OSError as error:
                _log.warning("what %s was sent cannot be kept: %s", owner, error)

    def _write(self, owner: str, body: bytes | None) -> None:
        path = self._folder / f"{hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()}{_SUFFIX}"
        if body is None:
            path.unlink(missing_ok=True)
            self._written.pop(owner, None)
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(owner.encode() + b"\n" + body)
        os.replace(aside, path)
        self._written[owner] = body
