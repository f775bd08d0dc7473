"""Keeps a configuration file, or a folder of them, in force, and a copy of what was good last."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from dragoman.file_watch import looks
from dragoman.garbage import collector_paused
from dragoman.xds_client import write_privately
from ratelimit_service.config_file import Files
from ratelimit_service.config_folder import State, passed_over, read, state_of, watched
from ratelimit_service.model import Config, Fault
from ratelimit_service.service import ConfigRejectedError, Service

_log = logging.getLogger(__name__)

_SETTLING_S: Final = 0.01
_SETTLED_LOOKS: Final = 3
_MOST_LOOKS: Final = 100


class FileSource:
    """Loads `path` into a service, and again whenever it changes; `last_good` holds what was accepted last."""

    def __init__(
        self, path: Path, service: Service, *, last_good: Path | None = None, merge_domains: bool = False
    ) -> None:
        self._path = path
        self._service = service
        self._last_good = last_good
        self._files = Files(merge_domains=merge_domains)
        self._seen: State = frozenset()

    async def load(self) -> None:
        """Loads the files, else the last good copy."""
        self._seen = await asyncio.to_thread(state_of, self._path)
        with contextlib.suppress(OSError):
            for file in await asyncio.to_thread(passed_over, self._path):
                _log.warning("%s is not read: it is neither .yaml, .yml nor .json", file)
        await self._take(*await asyncio.to_thread(self._read))

    async def run(self) -> None:
        """Follows the files until cancelled."""
        async with contextlib.aclosing(looks(self._path, lambda: watched(self._path))) as found:
            async for _ in found:
                await self._look()

    async def _look(self) -> None:
        state = await asyncio.to_thread(state_of, self._path)
        while state != self._seen:
            state = await self._settled(state)
            # Requests go on while a large file is read.
            found = await asyncio.to_thread(self._read)
            before, state = state, await asyncio.to_thread(state_of, self._path)
            if state == before:
                await self._take(*found)
                # Only now: had that failed, it would be tried again.
                self._seen = state
            # Else some were read before a folder was swapped, and some after it: once more.

    async def _settled(self, state: State) -> State:
        """Waits until nothing changes: who writes a file in place may be halfway, and half a file may make sense."""
        same = 0
        for _ in range(_MOST_LOOKS):
            await asyncio.sleep(_SETTLING_S)
            before, state = state, await asyncio.to_thread(state_of, self._path)
            same = same + 1 if state == before else 0
            if same == _SETTLED_LOOKS:
                break
        return state

    def _read(self) -> tuple[Mapping[str, bytes], Config, list[Fault]]:
        # In another thread too the collector would have requests wait.
        with collector_paused():
            files, faults = read(self._path)
            config, wrong = self._files.read(files)
        return files, config, faults + wrong

    async def _take(self, files: Mapping[str, bytes], config: Config, faults: Sequence[Fault]) -> None:
        try:
            await self._service.take(config, faults)
        except ConfigRejectedError:
            if not self._service.ready:
                await self._restore()
            return
        self._tell()
        await asyncio.to_thread(self._keep, files)

    def _tell(self) -> None:
        domains = len(self._service.config.domains)
        if domains:
            _log.info("configuration in force: %d domain%s from %s", domains, "s" if domains > 1 else "", self._path)
        else:
            _log.warning("no limits are in force: there is no file of limits in %s", self._path)

    def _keep(self, files: Mapping[str, bytes]) -> None:
        if self._last_good is None:
            return
        try:
            kept = {name: content.decode("utf-8") for name, content in files.items()}
            write_privately(self._last_good, json.dumps(kept).encode())
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("the last good configuration cannot be kept in %s: %s", self._last_good, error)

    async def _restore(self) -> None:
        """Puts the last good copy in force, where there is one."""
        config = await asyncio.to_thread(self._kept)
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
            files = _files_of(self._last_good.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("the last good configuration in %s cannot be read: %s", self._last_good, error)
            return None
        with collector_paused():
            config, faults = self._files.read(files)
        if faults:
            _log.warning("the last good configuration in %s is no good any more", self._last_good)
            return None
        return config


def _files_of(content: bytes) -> dict[str, bytes]:
    kept = json.loads(content)
    if not isinstance(kept, dict):
        raise ValueError("it holds no files")
    files = cast("dict[str, object]", kept)
    texts = {name: text for name, text in files.items() if isinstance(text, str)}
    if len(texts) < len(files):
        raise ValueError("it holds something that is no file")
    return {name: text.encode() for name, text in texts.items()}
