"""Makes the store that URLs name."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

from dragoman.batch import Batch
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.redis_cluster import RedisClusterStore
from ratelimit_service.stores.redis_sentinel import RedisSentinelStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import Kind, RedisUrl
from ratelimit_service.stores.split import SplitStore

RedisCounters: TypeAlias = RedisStore | RedisClusterStore | SplitStore


def open_redis(
    url: str,
    *,
    per_second: str | None = None,
    timeout_s: float = 0.02,
    server_time: bool = True,
    batch: Batch | None = None,
) -> RedisCounters:
    """Returns a store that begins to connect; raises ValueError for a URL that cannot be used.

    `batch` is shared with those who ask it, and are answered by it.
    """
    place = RedisUrl.parse(url)
    quick = RedisUrl.parse(per_second) if per_second is not None else None
    opened = partial(_opened, timeout_s=timeout_s, server_time=server_time, batch=batch)
    return opened(place) if quick is None else SplitStore(per_second=opened(quick), rest=opened(place))


def lacking(store: Store) -> str | None:
    """Says in words what is missing of a store; None for nothing."""
    if isinstance(store, RedisCounters):
        return store.lack
    return None if store.available else "cannot be asked"


def _opened(
    place: RedisUrl, *, timeout_s: float, server_time: bool, batch: Batch | None
) -> RedisStore | RedisClusterStore:
    store: RedisStore | RedisClusterStore
    if place.kind is Kind.SENTINEL:
        store = RedisSentinelStore(place, timeout_s=timeout_s, server_time=server_time, batch=batch)
    elif place.kind is Kind.CLUSTER:
        store = RedisClusterStore(place, timeout_s=timeout_s, server_time=server_time, batch=batch)
    else:
        store = RedisStore(place.server, timeout_s=timeout_s, server_time=server_time, batch=batch)
    store.start()
    return store
