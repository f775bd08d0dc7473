"""Makes the store that URLs name."""

from __future__ import annotations

from typing import TypeAlias

from ratelimit_service.stores.base import Store
from ratelimit_service.stores.redis_cluster import RedisClusterStore
from ratelimit_service.stores.redis_sentinel import RedisSentinelStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import Kind, RedisUrl
from ratelimit_service.stores.split import SplitStore

RedisCounters: TypeAlias = RedisStore | RedisClusterStore | SplitStore


def open_redis(
    url: str, *, per_second: str | None = None, timeout_s: float = 0.02, server_time: bool = True
) -> RedisCounters:
    """Returns a store that begins to connect; raises ValueError for a URL that cannot be used."""
    place = RedisUrl.parse(url)
    quick = RedisUrl.parse(per_second) if per_second is not None else None
    rest = _opened(place, timeout_s=timeout_s, server_time=server_time)
    if quick is None:
        return rest
    return SplitStore(per_second=_opened(quick, timeout_s=timeout_s, server_time=server_time), rest=rest)


def lacking(store: Store) -> str | None:
    """Says in words what is missing of a store; None for nothing."""
    if isinstance(store, RedisCounters):
        return store.lack
    return None if store.available else "cannot be asked"


def _opened(place: RedisUrl, *, timeout_s: float, server_time: bool) -> RedisStore | RedisClusterStore:
    store: RedisStore | RedisClusterStore
    if place.kind is Kind.SENTINEL:
        store = RedisSentinelStore(place, timeout_s=timeout_s, server_time=server_time)
    elif place.kind is Kind.CLUSTER:
        store = RedisClusterStore(place, timeout_s=timeout_s, server_time=server_time)
    else:
        store = RedisStore(place.server, timeout_s=timeout_s, server_time=server_time)
    store.start()
    return store
