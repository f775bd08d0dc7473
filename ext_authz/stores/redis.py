# pyright: standard
"""API keys in Redis: a hash per key, a sorted set of changes by generation, and a channel that says when to look."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ext_authz.stores.records import Changes, KeyRecord, StoreUnavailableError

POLL_S = 0.4
TIMEOUT_S = 0.15
T = TypeVar("T")

# One slot of a cluster, so that a change is atomic.
_TAG = "{dragoman-keys}"
_GENERATION, _CHANGES, _STORE = f"{_TAG}:generation", f"{_TAG}:changes", f"{_TAG}:store"
_CHANNEL = f"{_TAG}:changed"

_ADD = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[2]), ARGV[1])
redis.call('PUBLISH', KEYS[4], ARGV[1])
return 1
"""
_REVOKE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSETNX', KEYS[1], 'revoked_at', ARGV[2])
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[2]), ARGV[1])
redis.call('PUBLISH', KEYS[4], ARGV[1])
return 1
"""
_SET = """
local old = redis.call('HGET', KEYS[1], 'metadata')
if not old then return 0 end
local metadata = cjson.decode(old)
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then metadata[ARGV[i]] = nil else metadata[ARGV[i]] = ARGV[i + 1] end
end
redis.call('HSET', KEYS[1], 'metadata', cjson.encode(metadata))
if ARGV[2] == 'set' then redis.call('HSET', KEYS[1], 'tenant', ARGV[3]) end
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[2]), ARGV[1])
redis.call('PUBLISH', KEYS[4], ARGV[1])
return 1
"""


class RedisKeyStore:
    """A `KeyStore` in Redis. What is published is a hint alone: changes are read by generation, so none is lost."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        # One retry: a connection that has gone stale is noticed only when it is used.
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),
            max_connections=64,
            decode_responses=False,
        )
        self._pubsub: PubSub | None = None
        self._store: bytes | None = None

    async def find(self, key_id: str) -> KeyRecord | None:
        found = await _asking(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_key(key_id))))
        return _record(key_id, found) if found else None

    async def add(self, record: KeyRecord) -> None:
        fields = [part for pair in _fields(record).items() for part in pair]
        if not await self._change(_ADD, record.id, *fields):
            raise KeyError(record.id)

    async def list(self) -> Sequence[KeyRecord]:
        ids = await _asking(cast("Awaitable[list[bytes]]", self._redis.zrange(_CHANGES, 0, -1)))
        records: list[KeyRecord] = []
        for start in range(0, len(ids), 500):
            pipeline = self._redis.pipeline(transaction=False)
            batch = [item.decode() for item in ids[start : start + 500]]
            for key_id in batch:
                pipeline.hgetall(_key(key_id))
            rows: list[Any] = await _asking(pipeline.execute())
            records += [_record(key_id, row) for key_id, row in zip(batch, rows, strict=True) if row]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def revoke(self, key_id: str, at: float) -> bool:
        return bool(await self._change(_REVOKE, key_id, repr(at)))

    async def change(self, key_id: str, metadata: Mapping[str, str], tenant: str | None = None) -> bool:
        pairs = [part for pair in metadata.items() for part in pair]
        return bool(await self._change(_SET, key_id, "keep" if tenant is None else "set", tenant or "", *pairs))

    async def changes(self, since: int | None) -> Changes:
        pipeline = self._redis.pipeline(transaction=True)
        # Tells a store that was emptied and filled anew from the one that was known.
        pipeline.set(_STORE, secrets.token_hex(16), nx=True)
        pipeline.get(_STORE)
        pipeline.get(_GENERATION)
        pipeline.zrangebyscore(_CHANGES, "+inf" if since is None else f"({since}", "+inf", start=0, num=10_001)
        rows: list[Any] = await _asking(pipeline.execute())
        _, store, generation, ids = rows
        same, self._store = store == self._store, store
        generation = int(generation or 0)
        if since is None or not same or generation < since or len(ids) > 10_000:
            return Changes(generation, None)
        return Changes(generation, tuple(item.decode() for item in ids))

    async def wait(self, timeout_s: float) -> None:
        timeout_s = min(timeout_s, POLL_S)
        try:
            if self._pubsub is None:
                pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
                await pubsub.subscribe(_CHANNEL)
                self._pubsub = pubsub
            await self._pubsub.get_message(timeout=timeout_s)
        except (RedisError, OSError, TimeoutError):
            await self._unsubscribe()
            await asyncio.sleep(timeout_s)

    async def close(self) -> None:
        await self._unsubscribe()
        await self._redis.aclose()

    async def _unsubscribe(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            try:
                await pubsub.aclose()
            except (RedisError, OSError, TimeoutError):
                pass

    async def _change(self, script: str, key_id: str, *arguments: str) -> Any:
        keys = (_key(key_id), _GENERATION, _CHANGES, _CHANNEL)
        return await _asking(cast("Awaitable[Any]", self._redis.eval(script, 4, *keys, key_id, *arguments)))


def _key(key_id: str) -> str:
    return f"{_TAG}:key:{key_id}"


async def _asking(reply: Awaitable[T]) -> T:
    try:
        return await reply
    except (RedisError, OSError, TimeoutError) as error:
        # The class alone: a message may quote the address with its password.
        raise StoreUnavailableError(f"Redis: {type(error).__name__}") from error


def _fields(record: KeyRecord) -> dict[str, str]:
    fields = {
        "sha256": record.sha256.hex(),
        "consumer": record.consumer,
        "tenant": record.tenant,
        "scopes": json.dumps(record.scopes),
        "metadata": json.dumps(dict(record.metadata)),
        "created_at": repr(record.created_at),
    }
    times = {"expires_at": record.expires_at, "revoked_at": record.revoked_at}
    return fields | {name: repr(value) for name, value in times.items() if value is not None}


def _record(key_id: str, row: Mapping[bytes, bytes]) -> KeyRecord:
    try:
        return KeyRecord(
            id=key_id,
            sha256=bytes.fromhex(row[b"sha256"].decode()),
            consumer=row[b"consumer"].decode(),
            created_at=float(row[b"created_at"]),
            scopes=tuple(json.loads(row[b"scopes"])),
            metadata=json.loads(row[b"metadata"]),
            tenant=row[b"tenant"].decode(),
            expires_at=float(row[b"expires_at"]) if b"expires_at" in row else None,
            revoked_at=float(row[b"revoked_at"]) if b"revoked_at" in row else None,
        )
    except (KeyError, ValueError) as error:
        raise StoreUnavailableError(f"Redis: key {key_id} cannot be read: {type(error).__name__}") from error
