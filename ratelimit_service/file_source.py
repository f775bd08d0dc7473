"""Keeps a configuration file, or a folder of them, in force, and a copy of what was good last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dragoman.beside import beside
from dragoman.file_watch import Folders
from dragoman.followed import Followed
from dragoman.garbage import collector_paused
from dragoman.kept_texts import keep_texts, kept_texts
from ratelimit_service.config_file import Files
from ratelimit_service.config_folder import State, passed_over, read, state_of, watched
from ratelimit_service.model import Config, Fault
from ratelimit_service.service import ConfigRejectedError, Service

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """What was read."""

    files: Mapping[str, bytes]
    config: Config
    faults: Sequence[Fault]


class FileSource:
    """Loads `path` into a service, and again whenever it changes; `last_good` holds what was accepted last."""

    def __init__(
        self, path: Path, service: Service, *, last_good: Path | None = None, merge_domains: bool = False
    ) -> None:
        self._path = path
        self._service = service
        self._last_good = last_good
        self._files = Files(merge_domains=merge_domains)
        self._followed = Followed(path, self, self._take)

    async def load(self) -> None:
        """Loads the files, else the last good copy."""
        with contextlib.suppress(OSError):
            for file in await beside(passed_over, self._path):
                _log.warning("%s is not read: it is neither .yaml, .yml nor .json", file)
        await self._followed.load()

    async def run(self) -> None:
        """Follows the files until cancelled."""
        await self._followed.run()

    def state(self) -> State:
        """Returns what differs once any file has changed."""
        return state_of(self._path)

    def folders(self) -> Folders:
        """Returns the folders in which changes are noticed."""
        return watched(self._path)

    def read(self) -> tuple[State, _Found]:
        """Reads the files."""
        state = self.state()
        files, faults = read(self._path)
        config, wrong = self._files.read(files)
        return state, _Found(files, config, faults + wrong)

    async def _take(self, found: _Found) -> None:
        rejected = self._service.rejected is not None
        try:
            await self._service.take(found.config, found.faults)
        except ConfigRejectedError:
            if not self._service.ready:
                await self._restore()
            return
        # Who was told of a fault is told of its end.
        self._tell(logging.WARNING if rejected else logging.INFO)
        # Not beside: what is begun to be written is to be written.
        await asyncio.to_thread(self._keep, found.files)

    def _tell(self, level: int) -> None:
        count = len(self._service.config.domains)
        if count:
            _log.log(level, "configuration in force: %d domain%s from %s", count, "s" if count > 1 else "", self._path)
        else:
            _log.warning("no limits are in force: there is no file of limits in %s", self._path)

    def _keep(self, files: Mapping[str, bytes]) -> None:
        if self._last_good is None:
            return
        try:
            keep_texts(self._last_good, {name: content.decode() for name, content in files.items()})
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("the last good configuration cannot be kept in %s: %s", self._last_good, error)

    async def _restore(self) -> None:
        """Puts the last good copy in force, where there is one."""
        config = await beside(self._kept)
        if config is None:
            return
        rejected = self._service.rejected
        await self._service.take(config, ())
        self._service.rejected = rejected
        _log.warning("the last good configuration is in force, from %s", self._last_good)

    def _kept(self) -> Config | None:
        if self._last_good is None or not self._last_good.exists():
            return None
        try:
            files = {name: text.encode() for name, text in kept_texts(self._last_good).items()}
        except (OSError, ValueError) as error:
            _log.warning("the last good configuration in %s cannot be read: %s", self._last_good, error)
            return None
        with collector_paused():
            config, faults = self._files.read(files)
        if faults:
            _log.warning("the last good configuration in %s is no good any more", self._last_good)
            return None
        return config
