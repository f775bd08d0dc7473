"""Keeps a configuration file in force, reloads it when it changes, and keeps a copy of what was good last."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from dragoman.beside import beside
from dragoman.file_watch import Folders, folders_of
from dragoman.followed import Followed
from dragoman.kept_texts import keep_texts, kept_texts
from ext_authz.config_file import ConfigFile, FileState, read_config, state_of
from ext_authz.policies import Change, Policies

log = logging.getLogger("ext_authz.config")

_PART: Final = 48 * 1024


class _Found(NamedTuple):
    """What was read."""

    config: ConfigFile
    change: Change
    took_s: float


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
        self._kept: Mapping[str, bytes] = {}
        self._files = frozenset({path})
        self._followed = Followed(path, self, self._take)
        self.ready = False
        """Whether a configuration is in force."""
        self.faults: tuple[str, ...] = ()
        """What is wrong with the file as it is now."""

    async def load(self) -> None:
        """Loads the file; where it says nothing, what was in force stays, at the start the last good copy."""
        await self._followed.load()

    async def run(self) -> None:
        """Follows the file, and those that it refers to, until cancelled."""
        await self._followed.run()

    def state(self) -> frozenset[FileState]:
        """Returns what differs once the file has changed, or one that it refers to."""
        return frozenset(map(state_of, self._files))

    def folders(self) -> Folders:
        """Returns the folders in which a change of the file is noticed at once."""
        return folders_of(self._path)

    def read(self) -> tuple[frozenset[FileState], _Found]:
        """Reads the files, up to what is to be put in force: what changes meanwhile replaces all of it."""
        started = time.perf_counter()
        change = Change()
        config = read_config(self._path, check=partial(self._policies.read_into, change))
        self._files = frozenset({self._path, *config.files})
        return frozenset(config.states), _Found(config, change, time.perf_counter() - started)

    async def _take(self, found: _Found) -> None:
        config = found.config
        self.faults = tuple(map(str, config.faults[:100]))
        for fault in self.faults:
            log.error("configuration fault: %s", fault)
        if not self.ready and config.faults:
            await self._restore()
        if not config.readable:
            return
        stay = {name: body for name in config.unsound if (body := self._kept.get(name)) is not None}
        await self._put(stay | config.policies, found.change)
        log.info("%d policies in force from %s, %.1f ms", len(self._kept), self._path, found.took_s * 1000)
        # Not beside: what is begun to be written is to be written.
        await asyncio.to_thread(self._keep)

    async def _put(self, bodies: Mapping[str, bytes], change: Change) -> None:
        """Puts exactly these in force; others leave after the usual while."""
        await self._policies.put(change, self._policies.by_id.keys() - bodies.keys())
        self._kept = bodies
        self.ready = True
        self._on_load()

    def _keep(self) -> None:
        if self._last_good is None:
            return
        try:
            keep_texts(self._last_good, {name: _base64(body) for name, body in self._kept.items()})
        except OSError as error:
            log.warning("the last good configuration cannot be kept in %s: %s", self._last_good, error)

    async def _restore(self) -> None:
        restored = await beside(self._restored)
        if restored is None:
            return
        await self._put(*restored)
        log.warning("the last good configuration is in force, from %s", self._last_good)

    def _restored(self) -> tuple[Mapping[str, bytes], Change] | None:
        if self._last_good is None:
            return None
        try:
            bodies = {name: base64.b64decode(text) for name, text in kept_texts(self._last_good).items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the last good configuration in %s cannot be read: %s", self._last_good, error)
            return None
        return bodies, self._policies.prepared(bodies)


def _base64(body: bytes) -> str:
    # A large one in one go would keep every other thread waiting.
    parts = (base64.b64encode(body[begin : begin + _PART]) for begin in range(0, len(body), _PART))
    return b"".join(parts).decode()
