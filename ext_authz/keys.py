"""What `dragoman key` does with API keys; a key is shown once, when it is made, and stored hashed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ext_authz.api_keys import generate
from ext_authz.claims import sendable
from ext_authz.stores.records import KeyRecord, KeyStore
from ext_authz.stores.redis import RedisKeyStore
from ext_authz.stores.sqlite import SqliteKeyStore

CLI_TIMEOUT_S = 5.0
MAX_SCOPES = 64
MAX_METADATA = 32
MAX_TEXT = 256
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Where the keys are: in Redis when there is a URL, else in the SQLite file."""

    path: Path
    redis_url: str = ""


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be. `expires_in_s` of None: it is good until it is revoked."""

    consumer: str
    scopes: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    tenant: str = ""
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key that was made. `key` is the secret itself, which nobody can show again."""

    key: str = field(repr=False)
    record: KeyRecord


def open_store(location: StoreLocation, *, timeout_s: float | None = None) -> KeyStore:
    """Returns the store; a service leaves `timeout_s` to the store, which then never holds a request up for long."""
    if location.redis_url:
        return RedisKeyStore(location.redis_url, **({} if timeout_s is None else {"timeout_s": timeout_s}))
    return SqliteKeyStore(location.path, **({} if timeout_s is None else {"busy_s": timeout_s}))


def create_key(location: StoreLocation, wanted: NewKey, *, now: Callable[[], float] = time.time) -> CreatedKey:
    """Makes a key. Raises ValueError naming what cannot be, StoreUnavailableError when the store is out of reach."""
    faults = new_key_faults(wanted)
    if faults:
        raise ValueError("; ".join(faults))
    return _asking(location, lambda store: add_key(store, wanted, now()))


def list_keys(location: StoreLocation) -> Sequence[KeyRecord]:
    """Returns all keys, oldest first, revoked ones too. Raises StoreUnavailableError."""
    return _asking(location, lambda store: store.list())


def revoke_key(location: StoreLocation, key_id: str, *, now: Callable[[], float] = time.time) -> bool:
    """Revokes a key by its id (the second part of the key); False when there is none. Raises StoreUnavailableError."""
    return _asking(location, lambda store: store.revoke(key_id, now()))


def change_key(location: StoreLocation, key_id: str, *, metadata: Mapping[str, str], tenant: str | None = None) -> bool:
    """Changes what a key says of its consumer; an empty value takes metadata away. False when there is no such key.

    Raises ValueError naming what cannot be, StoreUnavailableError when the store is out of reach.
    """

    async def run(store: KeyStore) -> bool:
        record = await store.find(key_id)
        if record is None:
            return False
        merged = {name: value for name, value in {**record.metadata, **metadata}.items() if value}
        faults = new_key_faults(
            NewKey(record.consumer, metadata=merged, tenant=record.tenant if tenant is None else tenant)
        )
        if faults:
            raise ValueError("; ".join(faults))
        return await store.change(key_id, metadata, tenant)

    return _asking(location, run)


async def add_key(store: KeyStore, wanted: NewKey, now: float) -> CreatedKey:
    """Makes a key in an open store."""
    key, identified = generate()
    assert identified.key_id is not None
    record = KeyRecord(
        id=identified.key_id,
        sha256=identified.sha256,
        consumer=wanted.consumer,
        created_at=now,
        scopes=tuple(dict.fromkeys(wanted.scopes)),
        metadata=dict(wanted.metadata),
        tenant=wanted.tenant,
        expires_at=None if wanted.expires_in_s is None else now + wanted.expires_in_s,
    )
    await store.add(record)
    return CreatedKey(key, record)


def new_key_faults(wanted: NewKey) -> list[str]:
    """Returns what is wrong with a wish for a key, each fault led by its field."""
    faults: list[str] = []
    if not wanted.consumer:
        faults.append("consumer: is missing")
    texts = {"consumer": wanted.consumer, "tenant": wanted.tenant}
    texts |= {f"metadata.{key}": value for key, value in wanted.metadata.items()}
    texts |= {"metadata: a key": max(wanted.metadata, key=len, default="")}
    for at, text in texts.items():
        if len(text) > MAX_TEXT or not sendable(text):
            faults.append(f"{at}: at most {MAX_TEXT} characters, none of them a control character or a space at an end")
    if any(not scope or len(scope) > MAX_TEXT or not scope.isprintable() or " " in scope for scope in wanted.scopes):
        faults.append("scopes: a scope has 1 to 256 printable characters without spaces")
    if len(wanted.scopes) > MAX_SCOPES:
        faults.append(f"scopes: more than {MAX_SCOPES}")
    if len(wanted.metadata) > MAX_METADATA:
        faults.append(f"metadata: more than {MAX_METADATA} entries")
    if wanted.expires_in_s is not None and wanted.expires_in_s <= 0:
        faults.append("expires_in_s: must be more than 0")
    return faults


def _asking(location: StoreLocation, ask: Callable[[KeyStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = open_store(location, timeout_s=CLI_TIMEOUT_S)
        try:
            return await ask(store)
        finally:
            await store.close()

    return asyncio.run(run())
