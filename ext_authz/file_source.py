"""Keeps a configuration file in force, reloads it when it changes, and keeps a copy of what was good last."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dragoman.file_watch import folders_of, looks
from dragoman.xds_client import write_privately
from ext_authz.config_file import ConfigFile, read_config
from ext_authz.policies import Policies

log = logging.getLogger("ext_authz.config")


class FileSource:
    """Loads `path` into the policies. A policy with a fault keeps its last good content; the others go in force."""

    def __init__(
        self,
        path: Path,
        policies: Policies,
        *,
        on_load: Callable[[], None] = lambda: None,
        last_good: Path | None = None,
    ) -> None:
        self._path = path
        self._policies = policies
        self._on_load = on_load
        self._last_good = last_good
        self._kept: dict[str, bytes] = {}
        self._files: list[Path] = [path]
        self._seen: object = None
        self.ready = False
        """Whether a configuration is in force."""
        self.faults: tuple[str, ...] = ()
        """What is wrong with the file as it is now."""

    def load(self) -> None:
        """Loads the file; where it says nothing, what was in force stays, at the start the last good copy."""
        self._seen = self._state()
        started = time.perf_counter()
        config = read_config(self._path)
        self._files = [self._path, *config.files]
        self._seen = self._state()
        self.faults = tuple(map(str, config.faults))
        for fault in self.faults[:100]:
            log.error("configuration fault: %s", fault)
        if not self.ready and config.faults:
            self._restore()
        if config.readable:
            self._put(config)
            took_ms = (time.perf_counter() - started) * 1000
            log.info("%d policies in force from %s, %.1f ms", len(self._kept), self._path, took_ms)

    async def run(self) -> None:
        """Follows the file, and those that it refers to, until cancelled."""
        async with contextlib.aclosing(looks(self._path, lambda: folders_of(self._path))) as found:
            async for _ in found:
                if self._state() != self._seen:
                    self.load()

    def _put(self, config: ConfigFile) -> None:
        stay = {name: body for name, body in self._kept.items() if name in config.unsound}
        self._kept = {**stay, **config.policies}
        self._policies.replace(self._kept)
        self.ready = True
        self._on_load()
        self._keep()

    def _state(self) -> tuple[tuple[str, int, int, int] | str, ...]:
        found: list[tuple[str, int, int, int] | str] = []
        for file in self._files:
            try:
                stat = file.stat()
                found.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append(str(file))
        return tuple(found)

    def _keep(self) -> None:
        if self._last_good is None:
            return
        kept = {name: base64.b64encode(body).decode() for name, body in self._kept.items()}
        try:
            write_privately(self._last_good, json.dumps(kept).encode())
        except OSError as error:
            log.warning("the last good configuration cannot be kept in %s: %s", self._last_good, error)

    def _restore(self) -> None:
        if self._last_good is None:
            return
        try:
            kept: Mapping[str, str] = json.loads(self._last_good.read_bytes())
            restored = {name: base64.b64decode(text) for name, text in kept.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("the last good configuration in %s cannot be read: %s", self._last_good, error)
            return
        self._kept = restored
        self._policies.replace(restored)
        self.ready = True
        self._on_load()
        log.warning("the last good configuration is in force, from %s", self._last_good)
