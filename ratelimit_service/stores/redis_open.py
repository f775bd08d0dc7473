"""Makes the store that a URL names."""

from __future__ import annotations

from ratelimit_service.stores.redis_cluster import RedisClusterStore
from ratelimit_service.stores.redis_sentinel import RedisSentinelStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import Kind, RedisUrl


def open_redis(url: str, *, timeout_s: float = 0.02, server_time: bool = True) -> RedisStore | RedisClusterStore:
    """Returns a store that begins to connect; raises ValueError for a URL that cannot be used."""
    place = RedisUrl.parse(url)
    store: RedisStore | RedisClusterStore
    if place.kind is Kind.SENTINEL:
        store = RedisSentinelStore(place, timeout_s=timeout_s, server_time=server_time)
    elif place.kind is Kind.CLUSTER:
        store = RedisClusterStore(place, timeout_s=timeout_s, server_time=server_time)
    else:
        store = RedisStore(place.server, timeout_s=timeout_s, server_time=server_time)
    store.start()
    return store
