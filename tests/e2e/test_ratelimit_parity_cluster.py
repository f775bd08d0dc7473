# pyright: standard
"""A real Redis Cluster decides as the models do: requests whose keys share a slot as one, others limit by limit."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings

from ratelimit_service.stores import redis_cluster
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_cluster import RedisClusterStore
from ratelimit_service.stores.redis_url import RedisUrl
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import until
from tests.unit.ratelimit.test_parity import BACK, FORWARD, KEYS, Asked, replay, streams

OK, OVER = 1, 2
CONFIG = """
domain: d
descriptors:
  - {key: sliding, rate_limit: {unit: day, requests_per_unit: 5, algorithm: sliding_window}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 2, algorithm: token_bucket}}
"""


async def test_requests_whose_keys_share_a_slot_are_decided_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else Hypothesis takes what the store draws meanwhile, on the loop, for what a strategy draws.
    monkeypatch.setattr(redis_cluster, "random", random.Random(1))
    tenants = iter(range(100_000))
    loop = asyncio.get_running_loop()
    async with RedisCluster() as cluster:
        store = RedisClusterStore(RedisUrl.parse(cluster.url), timeout_s=5, server_time=False)
        store.start()
        await until(lambda: store.whole, what="a connection to every node")

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(streams(KEYS, FORWARD + BACK))
        def check(stream: list[Asked]) -> None:
            work = replay(store, stream, f"{{{next(tenants)}}}")
            asyncio.run_coroutine_threadsafe(work, loop).result(60)

        try:
            await asyncio.to_thread(check)
            await _others_are_decided_limit_by_limit(store)
        finally:
            await store.close()


async def _others_are_decided_limit_by_limit(store: RedisClusterStore) -> None:
    far, near = Limiter(CONFIG, store, clock=Clock()), Limiter(CONFIG, MemoryStore(), clock=Clock())
    body = request("d", [("sliding", "one")], [("bucket", "another")])
    for limiter, left in ((far, 1), (near, 3)):
        found = [(await limiter.response(body)).overall_code for _ in range(4)]
        assert found == [OK, OK, OVER, OVER]
        peek = await limiter.response(request("d", [("sliding", "one")], own_hits=(0,)))
        assert peek.statuses[0].limit_remaining >= left
