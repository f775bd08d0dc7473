"""Keeps a configuration file, or a folder of them, in force, and a copy of what was good last."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from dragoman.xds_client import write_privately
from ratelimit_service.config_file import files_of, parse, read_path
from ratelimit_service.model import Config, Fault
from ratelimit_service.service import ConfigRejectedError, Service

_log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)


class FileSource:
    """Loads `path` into a service, and again whenever it changes; `last_good` holds what was accepted last."""

    def __init__(self, path: Path, service: Service, *, last_good: Path | None = None) -> None:
        self._path = path
        self._service = service
        self._last_good = last_good
        self._seen = self._state()

    def load(self) -> bool:
        """Loads the files, else the last good copy; returns whether a configuration is in force."""
        self._seen = self._state()
        return self._take(*read_path(self._path))

    async def run(self) -> None:
        """Watches until cancelled."""
        # Editors and Kubernetes replace files rather than write them, so it is the folder that is watched.
        folder = self._path if self._path.is_dir() else self._path.absolute().parent
        while True:
            with contextlib.suppress(FileNotFoundError):
                # It wakes once a second all the same: some file systems tell of no changes.
                async for _ in awatch(
                    folder, debounce=50, step=5, rust_timeout=1000, yield_on_timeout=True, recursive=False
                ):
                    state = self._state()
                    if state != self._seen:
                        self._seen = state
                        # Requests go on while a large file is read.
                        self._take(*await asyncio.to_thread(read_path, self._path))
            await asyncio.sleep(1)

    def _take(self, config: Config, faults: Sequence[Fault]) -> bool:
        try:
            self._service.take(config, faults)
        except ConfigRejectedError:
            return self._service.ready or self._load_last_good()
        _log.info("configuration in force: %d domains from %s", len(config.domains), self._path)
        self._keep()
        return True

    def _state(self) -> tuple[tuple[str, int, int, int], ...]:
        found: list[tuple[str, int, int, int]] = []
        with contextlib.suppress(OSError):
            for file in files_of(self._path):
                stat = file.stat()
                found.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def _keep(self) -> None:
        if self._last_good is None:
            return
        try:
            kept = {str(file): file.read_text("utf-8") for file in files_of(self._path)}
            write_privately(self._last_good, json.dumps(kept).encode())
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("the last good configuration cannot be kept in %s: %s", self._last_good, error)

    def _load_last_good(self) -> bool:
        if self._last_good is None or not self._last_good.exists():
            return False
        try:
            kept: dict[str, str] = json.loads(self._last_good.read_bytes())
        except (OSError, ValueError) as error:
            _log.warning("the last good configuration in %s cannot be read: %s", self._last_good, error)
            return False
        parsed = [parse(content.encode(), source=name) for name, content in kept.items()]
        if any(faults for _, faults in parsed):
            _log.warning("the last good configuration in %s is no good any more", self._last_good)
            return False
        rejected = self._service.rejected
        self._service.use(Config({domain.name: domain for domains, _ in parsed for domain, _ in domains}))
        self._service.rejected = rejected
        _log.warning("the last good configuration is in force, from %s", self._last_good)
        return True
