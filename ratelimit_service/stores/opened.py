"""Opens the store that the settings ask for: Redis, memory, or the memory of the worker that counts for all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dragoman.batch import Batch
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_open import open_redis
from ratelimit_service.stores.shared_server import SharedMemory
from ratelimit_service.stores.shared_store import SharedStore

_SERVED_WITHIN_S = 5.0


async def open_store(settings: RateLimitSettings, *, batch: Batch | None = None) -> Store:
    """Returns the store, which may not answer yet; raises OSError where memory cannot be shared."""
    if settings.redis is not None:
        return open_redis(
            settings.redis, per_second=settings.redis_per_second, timeout_s=settings.store_timeout_s, batch=batch
        )
    if settings.shared_memory is None:
        return MemoryStore(max_keys=settings.max_keys)
    if settings.shares_memory:
        memory = SharedMemory(max_keys=settings.max_keys)
        await memory.serve(settings.shared_memory)
        return memory
    await _until_served(settings.shared_memory)
    store = SharedStore(settings.shared_memory, timeout_s=settings.store_timeout_s, batch=batch)
    store.start()
    return store


async def _until_served(socket: Path) -> None:
    # The workers of a pool start side by side, and the one that counts is not to be found out of reach for that.
    for _ in range(int(_SERVED_WITHIN_S / 0.02)):
        if await asyncio.to_thread(socket.exists):
            return
        await asyncio.sleep(0.02)
