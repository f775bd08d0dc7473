# pyright: standard
"""Limits counted in a real Redis: exact under concurrency, and with a Redis that dies, freezes and comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis_client

from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Limiter, request
from tests.support.redis import RedisServer
from tests.support.redis_load import BOUND_S, TIMEOUT_S, Load, counter_key, limiter, opened
from tests.support.waiting import until


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


async def timed(given: Limiter, key: str, value: str = "x") -> tuple[int, float]:
    """Returns the overall code (1 OK, 2 over) and the seconds that it took."""
    started = time.monotonic()
    response = await given.response(request("d", [(key, value)]))
    return response.overall_code, time.monotonic() - started


@pytest.mark.parametrize("key", ["open", "shut-bucket"])
async def test_ten_thousand_concurrent_requests_on_one_key_admit_exactly_the_limit(
    redis: RedisServer, key: str
) -> None:
    async with opened(redis.unix_url, timeout_s=5) as one, opened(redis.url, timeout_s=5) as other:
        limiters = [limiter(one), limiter(other)]
        body = request("d", [(key, "x")])
        responses = await asyncio.gather(*(limiters[i % 2].response(body) for i in range(10_000)))
    codes = [response.overall_code for response in responses]
    # 1000 a day come back one in 86 s: a run that takes longer would see one more.
    assert codes.count(1) == 1000
    assert codes.count(2) == 9000


async def test_counters_are_named_as_envoyproxy_ratelimit_names_them_and_expire(redis: RedisServer) -> None:
    async with opened(redis.unix_url) as store, redis_client.from_url(redis.url) as client:
        given = limiter(store)
        given.clock.now = 1_800_000_123.0
        for _ in range(3):
            await given.response(request("d", [("open", "x")]))
        await given.response(request("d", [("shut-bucket", "x")]))
        assert await client.get("d_open_x_1799971200") == b"3"
        assert sorted(await client.keys("*")) == [b"d_open_x_1799971200", counter_key("shut-bucket", "x")]
        for key in await client.keys("*"):
            assert 0 < await client.ttl(key) <= 86400


@pytest.mark.parametrize("hits", [0, 1, 5])
async def test_a_counter_that_redis_lost_expires_again_when_it_begins_anew(redis: RedisServer, hits: int) -> None:
    async with opened(redis.unix_url) as store, redis_client.from_url(redis.url) as client:
        given = limiter(store)
        await given.response(request("d", [("open", "x")]))
        await client.flushall()
        await given.response(request("d", [("open", "x")], own_hits=(hits,)))
        (key,) = await client.keys("*")

        async def expires() -> bool:
            return await client.ttl(key) > 0

        await until(expires, what="an expiry on the counter")


async def test_a_script_that_redis_forgot_is_sent_again(redis: RedisServer) -> None:
    async with opened(redis.unix_url) as store, redis_client.from_url(redis.url) as client:
        given = limiter(store)
        await client.script_flush()
        responses = [await given.response(request("d", [("shut-bucket", "x")])) for _ in range(3)]
        assert [response.statuses[0].limit_remaining for response in responses] == [999, 998, 997]


async def test_a_key_over_its_limit_is_not_asked_for_again_until_it_resets(redis: RedisServer) -> None:
    async with opened(redis.unix_url) as store, redis_client.from_url(redis.url) as client:
        given = limiter(store)
        over = request("d", [("open", "x")], hits=1001)
        assert (await given.response(over)).overall_code == 2
        before = (await client.info("commandstats"))["cmdstat_incrby"]["calls"]
        for _ in range(10):
            assert (await given.response(over)).overall_code == 2
        assert (await client.info("commandstats"))["cmdstat_incrby"]["calls"] == before
        given.clock.now += 86400
        assert (await given.response(request("d", [("open", "x")]))).overall_code == 1


async def test_without_redis_from_the_start_limits_follow_their_fail_mode_at_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.kill()
    caplog.set_level(logging.INFO)
    async with opened(redis.url, wait=False) as store:
        given = limiter(store)
        for _ in range(200):
            for key, code in (("open", 1), ("shut", 2), ("shut-bucket", 2), ("never", 1)):
                decided, took_s = await timed(given, key)
                assert decided == code
                assert took_s < BOUND_S
        refused = await given.response(request("d", [("shut", "x")]))
        headers = {header.key: header.value for header in refused.response_headers_to_add}
        assert headers == {"retry-after": "1", "content-type": "application/json"}
        assert b'"rate_limit_unavailable"' in refused.raw_body
        assert given.stats.of("d", "shut").errors == 201
        await redis.start()
        await until(lambda: store.available, what="the store to come back by itself")
        assert (await timed(given, "shut"))[0] == 1
    told = [record.getMessage() for record in caplog.records if record.name.startswith("ratelimit_service")]
    assert len([line for line in told if "is out of reach" in line]) == 1
    assert len([line for line in told if "answers again after" in line]) == 1
    assert len(told) == 2


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_under_load_a_redis_that_goes_and_comes_back_delays_nobody_beyond_the_timeout(
    redis: RedisServer, how: str
) -> None:
    async with opened(redis.url) as store, Load(limiter(store), clients=32) as load:
        await load.until_allowed(200)
        if how == "killed":
            await redis.kill()
        else:
            redis.pause()
        await load.until_refused(500)
        if how == "killed":
            await redis.start()
        else:
            redis.resume()
        await load.until_allowed(200)
    assert load.slowest_s < BOUND_S


async def test_only_requests_of_the_first_moment_wait_for_a_frozen_redis(redis: RedisServer) -> None:
    async with opened(redis.url) as store:
        given = limiter(store)
        redis.pause()
        assert (await timed(given, "shut"))[0] == 2
        assert not store.available
        answers = [await timed(given, "shut") for _ in range(21)]
        assert {code for code, _ in answers} == {2}
        assert sorted(took_s for _, took_s in answers)[10] < TIMEOUT_S / 5
        redis.resume()
        await until(lambda: store.available, what="the store to come back")


async def test_counts_go_on_where_they_were_after_a_freeze(redis: RedisServer) -> None:
    async with opened(redis.url) as store:
        given = limiter(store)
        body = request("d", [("shut", "x")])
        await given.response(body)
        redis.pause()
        await given.response(body)
        redis.resume()
        await until(lambda: store.available, what="the store to come back")
        # The hit that was given up on was counted all the same: a limit errs on the safe side.
        assert (await given.response(body)).statuses[0].limit_remaining == 99_997


async def test_redis_out_of_memory_is_the_fail_mode_of_each_limit(redis: RedisServer) -> None:
    async with opened(redis.url) as store, redis_client.from_url(redis.url) as client:
        given = limiter(store)
        await client.config_set("maxmemory", "1")
        assert (await timed(given, "open"))[0] == 1
        assert (await timed(given, "shut"))[0] == 2
        assert (await timed(given, "shut-bucket"))[0] == 2
        # A script that cannot write reports it under its own name.
        assert store.nodes[0].errors["OOM"] >= 2
        assert store.nodes[0].errors.total() == 3
        await client.config_set("maxmemory", "0")
        assert (await timed(given, "shut"))[0] == 1


async def test_a_password_is_used_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with RedisServer(password="s3cret-pw") as server:
        async with opened(server.url) as store:
            assert (await timed(limiter(store), "shut"))[0] == 1
        wrong = f"redis://:s3cret-no@127.0.0.1:{server.port}/0"
        async with opened(wrong, wait=False) as store:
            await until(lambda: "is out of reach: WRONGPASS" in caplog.text, what="the refusal in the log")
            assert (await timed(limiter(store), "shut"))[0] == 2
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(RedisTarget.parse(wrong))
