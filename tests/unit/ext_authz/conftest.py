"""The stores of API keys that every test of them runs on: SQLite, and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from ext_authz.keys import StoreLocation, open_store
from ext_authz.stores.records import KeyStore
from tests.support.redis import RedisServer


@pytest_asyncio.fixture(params=["sqlite", "redis"])
async def location(
    request: pytest.FixtureRequest, stack: AsyncExitStack, tmp_path: Path
) -> AsyncIterator[StoreLocation]:
    """Where the keys are."""
    if request.param == "sqlite":
        yield StoreLocation(tmp_path / "keys.db")
    else:
        server = await stack.enter_async_context(RedisServer())
        yield StoreLocation(tmp_path / "unused.db", server.url)


@pytest.fixture
def connect(stack: AsyncExitStack, location: StoreLocation) -> Callable[[], KeyStore]:
    """`connect()` → one more client of the store."""

    def make() -> KeyStore:
        store = open_store(location)
        stack.push_async_callback(store.close)
        return store

    return make
