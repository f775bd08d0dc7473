"""Asks the store for keys, once for all who wait for the same one, and follows what changes in it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from ext_authz.stores.records import KeyRecord, KeyStore, StoreUnavailableError

MAX_IN_FLIGHT = 256
FAIL_FAST_S = 0.25
POLL_S = 0.5
log = logging.getLogger("ext_authz.keys")

OnChange = Callable[[Iterable[str] | None], None]
"""Told which keys changed; None: any of them may have."""


class KeyLookup:
    """Bounded, single-flight look-ups; after a failure the store is left alone for a moment."""

    def __init__(self, store: KeyStore, *, on_change: OnChange) -> None:
        self._store = store
        self._on_change = on_change
        self._flights: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self.epoch = 0
        """Rises with every change that is told of: what was read before one is not to be remembered after it."""
        self._generation: int | None = None
        self._down_until = 0.0
        self.reachable = True
        """Whether the last attempt to follow the store's changes succeeded."""

    async def find(self, key_id: str) -> KeyRecord | None:
        """Returns a key; raises StoreUnavailableError when the store, or the room to ask it, is lacking."""
        flight = self._flights.get(key_id)
        if flight is None:
            if len(self._flights) >= MAX_IN_FLIGHT:
                raise StoreUnavailableError("too many look-ups at once")
            if asyncio.get_running_loop().time() < self._down_until:
                raise StoreUnavailableError("out of reach a moment ago")
            flight = asyncio.create_task(self._find(key_id))
            self._flights[key_id] = flight
            flight.add_done_callback(lambda done: self._landed(key_id, done))
        # Who leaves early must not take the look-up from the others.
        return await asyncio.shield(flight)

    async def follow(self) -> None:
        """Tells `on_change` of changes, for ever; through an outage nothing is told, and all of it afterwards."""
        while True:
            await self.catch_up()
            await self._store.wait(POLL_S)

    async def catch_up(self) -> None:
        """Reads once what changed in the store."""
        try:
            changes = await self._store.changes(self._generation)
        except StoreUnavailableError as error:
            if self.reachable:
                log.warning("the key store is out of reach: %s", error)
            self.reachable = False
            return
        if not self.reachable:
            log.info("the key store is back")
        self.reachable = True
        self._generation = changes.generation
        if changes.key_ids is None or changes.key_ids:
            self.epoch += 1
            self._on_change(changes.key_ids)

    async def close(self) -> None:
        """Ends what is in flight and closes the store."""
        for flight in tuple(self._flights.values()):
            flight.cancel()
            with contextlib.suppress(asyncio.CancelledError, StoreUnavailableError):
                await flight
        await self._store.close()

    async def _find(self, key_id: str) -> KeyRecord | None:
        for _ in range(5):
            epoch = self.epoch
            record = await self._store.find(key_id)
            # A change that was told of meanwhile may have been to this key, after it was read.
            if epoch == self.epoch:
                return record
        raise StoreUnavailableError("the store changes too fast")

    def _landed(self, key_id: str, flight: "asyncio.Task[KeyRecord | None]") -> None:
        del self._flights[key_id]
        if not flight.cancelled() and flight.exception() is not None:
            self._down_until = asyncio.get_running_loop().time() + FAIL_FAST_S
