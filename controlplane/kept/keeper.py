"""Keeps the store as the cache is: some time after a change, on a thread, one write at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from controlplane.kept.secrets import Secrets
from controlplane.kept.store import Change, Store
from controlplane.xds.diff import diff
from controlplane.xds.resources import Resource, Snapshot

_log = logging.getLogger(__name__)

_WRITE_AFTER_S: Final = 1.0
_SHARE: Final = 10.0
"""A write is followed by a pause of at least so many times what it took."""
_AFTER_A_FAILURE_S: Final = 60.0


class Keeper:
    """`touch` says that something was published; `close` writes what is left. Used on the event loop.

    `standing` returns what is published, by owner.
    """

    def __init__(
        self,
        store: Store,
        standing: Callable[[], Mapping[str, Snapshot]],
        *,
        known: Mapping[str, Snapshot],
        write_after_s: float = _WRITE_AFTER_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`known` is what the store holds."""
        self._store = store
        self._standing = standing
        self._known = dict(known)
        self._write_after_s = write_after_s
        self._now = now
        self._secrets = Secrets()
        self._touched = False
        self._pause_s = write_after_s
        self._due: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def touch(self) -> None:
        """Takes in that something was published, to be written soon."""
        self._touched = True
        if self._due is None and self._writing is None:
            self._due = asyncio.get_running_loop().call_later(self._pause_s, self._begin)

    async def close(self) -> None:
        """Writes what is left, and closes the file."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        # Only now, for a write that ends may have set the next one.
        if self._due is not None:
            self._due.cancel()
        try:
            if self._touched:
                await asyncio.to_thread(self._write, self._standing())
        except Exception:
            _log.exception("the snapshot could not be kept")
        finally:
            self._store.close()

    def _begin(self) -> None:
        self._due = None
        self._touched = False
        self._writing = asyncio.create_task(asyncio.to_thread(self._write, self._standing()), name="kept snapshot")
        self._writing.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the snapshot could not be kept", exc_info=error)
            # Nothing says that there will be another change.
            self._touched = True
            self._pause_s = min(_AFTER_A_FAILURE_S, 2 * self._pause_s)
        if self._touched:
            self.touch()

    def _write(self, standing: Mapping[str, Snapshot]) -> None:
        """Runs on a thread: what is shared with the event loop is frozen."""
        began_at = time.monotonic()
        try:
            saved = self._store.save(list(self._changes(standing)), self._now())
        except Exception:
            self._forget()
            raise
        if saved:
            self._known = dict(standing)
            self._pause_s = max(self._write_after_s, _SHARE * (time.monotonic() - began_at))
        else:
            self._forget()
            self._pause_s = _AFTER_A_FAILURE_S

    def _forget(self) -> None:
        """What is not up to date is not to be served one day; the next attempt writes everything."""
        self._known = {}
        self._store.clear()

    def _changes(self, standing: Mapping[str, Snapshot]) -> Iterator[Change]:
        for owner in self._known.keys() - standing.keys():
            yield Change(owner, gone=True)
        for owner, snapshot in standing.items():
            before = self._known.get(owner)
            if before is not snapshot:
                yield self._change(owner, before or Snapshot(), snapshot)

    def _change(self, owner: str, before: Snapshot, now: Snapshot) -> Change:
        put: list[Resource] = []
        withhold: list[tuple[str, str]] = []
        drop: list[tuple[str, str]] = []
        for type_url, names in diff(before, now).items():
            resources = now.of_type(type_url)
            for name in names:
                resource = resources.get(name)
                if resource is None:
                    drop.append((type_url, name))
                elif self._store.whole or not self._secrets.are_in(resource):
                    put.append(resource)
                else:
                    withhold.append((type_url, name))
        # What was left out before a restart is not among what is known: nothing else would tell that it is gone.
        return Change(owner, tuple(put), tuple(withhold), tuple(drop), anew=before.kept)
