# pyright: standard
"""Leases with a real Redis: never more than the limit, nearly all of it, and few commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis.asyncio as redis_client

from ratelimit_service.stores.leases import LeaseStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.ratelimit_process import ask, metrics, running
from tests.support.redis import RedisServer
from tests.support.waiting import until

OK, OVER = 1, 2
LIMIT, LEASE = 3000, 100
CONFIG = """
domain: d
on_store_error: deny
descriptors:
  - {key: window, rate_limit: {unit: day, requests_per_unit: 3000, precision: lease(100)}}
  - {key: sliding, rate_limit: {unit: day, requests_per_unit: 3000, algorithm: sliding_window, precision: lease(100)}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 3000, algorithm: token_bucket, precision: lease(100)}}
"""


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


class Worker:
    """A worker with leases, as `ratelimit_service.main` puts it together."""

    def __init__(self, store: RedisStore, *, clock: Clock | None = None) -> None:
        self.store = store
        self.leases = LeaseStore(store)
        self.limiter = Limiter(CONFIG, store, clock=clock or Clock(), leases=self.leases)

    async def code(self, key: str, value: str = "x", **given: Any) -> int:
        return (await self.limiter.response(request("d", [(key, value)], **given))).overall_code


@contextlib.asynccontextmanager
async def workers(redis: RedisServer, count: int, *, timeout_s: float = 5) -> AsyncGenerator[list[Worker]]:
    stores = [RedisStore(RedisTarget.parse(redis.unix_url), timeout_s=timeout_s) for _ in range(count)]
    for store in stores:
        store.start()
    try:
        await until(lambda: all(store.available for store in stores), what="the connections")
        yield [Worker(store) for store in stores]
    finally:
        for store in stores:
            await store.close()


async def commands(redis: RedisServer) -> int:
    """Returns how many counts Redis was asked for."""
    async with redis_client.from_url(redis.url) as client:
        stats = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("incrby", "evalsha", "eval"))


@pytest.mark.parametrize("key", ["window", "bucket", "sliding"])
async def test_ten_thousand_concurrent_requests_stay_within_the_limit_and_ask_redis_little(
    redis: RedisServer, key: str
) -> None:
    async with workers(redis, 3) as pool:
        codes = await asyncio.gather(*(pool[number % 3].code(key) for number in range(10_000)))
        assert LIMIT - 3 * LEASE <= codes.count(OK) <= LIMIT
        assert await commands(redis) < 200


@pytest.mark.parametrize("key", ["window", "bucket", "sliding"])
@pytest.mark.parametrize("seed", range(2))
async def test_random_requests_of_any_size_stay_within_the_limit(redis: RedisServer, key: str, seed: int) -> None:
    random = Random(seed)
    async with workers(redis, 3) as pool:
        admitted = 0

        async def one(hits: int) -> int:
            return hits if await random.choice(pool).code(key, hits=hits) == OK else 0

        while admitted < LIMIT - 300:
            wave = [random.choice([1, 1, 1, 1, 5, 30]) for _ in range(random.choice([1, 10, 200]))]
            admitted += sum(await asyncio.gather(*map(one, wave)))
        admitted += sum(await asyncio.gather(*(one(1) for _ in range(1000))))
        assert LIMIT - 3 * LEASE <= admitted <= LIMIT


async def test_a_redis_that_dies_and_freezes_lets_nobody_have_more_than_the_limit(redis: RedisServer) -> None:
    async with workers(redis, 3, timeout_s=0.05) as pool:
        codes: list[int] = []
        for wave in range(30):
            codes += await asyncio.gather(*(worker.code("window") for worker in pool for _ in range(100)))
            if wave == 10:
                redis.pause()
                codes += await asyncio.gather(*(worker.code("window") for worker in pool for _ in range(200)))
                redis.resume()
                await until(lambda: all(worker.store.available for worker in pool), what="Redis to be back")
        assert codes.count(OK) <= LIMIT
        # What was asked for when Redis froze was counted and not handed out.
        assert codes.count(OK) >= LIMIT - 3 * (LEASE + 200)
        await redis.kill()
        late = await asyncio.gather(*(worker.code("window") for worker in pool for _ in range(200)))
        assert codes.count(OK) + late.count(OK) <= LIMIT


async def test_leases_are_used_up_before_a_lost_redis_is_noticed_by_clients(redis: RedisServer) -> None:
    async with workers(redis, 1) as (worker,):
        for _ in range(500):
            assert await worker.code("window") == OK
        await redis.kill()
        await until(lambda: not worker.store.available, what="the connection to break")
        codes = [await worker.code("window") for _ in range(300)]
        assert 1 <= codes.count(OK) <= LEASE
        assert codes == sorted(codes)


async def test_workers_in_processes_share_a_limit_and_give_back_what_they_did_not_use(
    redis: RedisServer, tmp_path: Path
) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    bodies = [request("d", [("window", "x")])] * 700
    async with running(tmp_path, config=str(config), redis=redis.url, workers=2, store_timeout_s=5) as process:
        answers = await asyncio.gather(*(ask(tmp_path / f"rl.sock.{worker}", *bodies) for worker in (0, 1)))
        assert all(response.overall_code == OK for part in answers for response in part)
        found = await metrics(process)
        refills = sum(found["dragoman_ratelimit_lease_refills_total", frozenset({("worker", w)})] for w in "01")
        assert 2 <= refills < 200
        async with redis_client.from_url(redis.url) as client:
            (key,) = await client.keys("*")
            assert 1400 <= int(await client.get(key) or 0) <= 1400 + 2 * LEASE
            assert await process.stop() == 0
            assert int(await client.get(key) or 0) == 1400
