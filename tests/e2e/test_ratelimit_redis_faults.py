# pyright: standard
"""What becomes of limits when Redis misbehaves under load: no crash, no long wait, and all is well again by itself."""

from __future__ import annotations

import logging

import pytest
import redis.asyncio as redis_client

from ratelimit_service.stores.redis_open import lacking
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.redis import RedisServer
from tests.support.redis_impostor import Impostor, polite
from tests.support.redis_load import BOUND_S, Load, code, limiter, opened
from tests.support.waiting import until

SPLIT = """
domain: d
descriptors:
  - key: quick
    rate_limit: {unit: second, requests_per_unit: 100, on_store_error: deny}
  - key: slow
    rate_limit: {unit: day, requests_per_unit: 100, on_store_error: deny}
"""


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [line for line in caplog.messages if what in line]


def counts_only(answer: bytes):
    """Returns an impostor's way to answer: politely, but to counts."""
    return lambda name: answer if name in (b"INCRBY", b"EVALSHA", b"EVAL") else polite(name)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not Redis's protocol"),
        (b"$5\r\nhello\r\n", "the answer to a count is a bytes"),
        (b":1\r\n:1\r\n:1\r\n", "not Redis's protocol"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-READONLY You can't write against a read only replica.\r\n", "READONLY"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
    ],
    ids=["http", "text", "too-much", "loading", "readonly", "noauth"],
)
async def test_a_server_that_answers_nonsense_or_cannot_serve_is_left_and_tried_again(
    answer: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ratelimit_service")
    async with Impostor() as server, opened(server.url) as store, Load(limiter(store)) as load:
        await load.until_allowed()
        before = server.connections
        server.answer = counts_only(answer)
        await load.until_refused(500)
        # Not in a tight loop either.
        assert server.connections - before < 20
        server.answer = polite
        await until(lambda: store.available, what="the store to be back")
        await load.until_allowed(500)
    assert load.slowest_s < BOUND_S
    assert len(told(caplog, reason)) in (1, 2)
    assert len(caplog.messages) <= 4


async def test_an_endless_reply_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with Impostor() as server, opened(server.url, timeout_s=5) as store:
        server.answer = counts_only(b"$999999999\r\n" + b"x" * 20_000_000)
        assert await code(limiter(store), "shut") == 2
        await until(lambda: told(caplog, "a reply without end"), what="the reason in the log")


async def test_a_server_that_says_nothing_at_first_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    async with Impostor(lambda name: b"") as server, opened(server.url, wait=False) as store:
        async with Load(limiter(store)) as load:
            await load.until_refused(500)
        assert load.slowest_s < BOUND_S
        server.answer = polite
        await until(lambda: store.available, what="the store to be tried again")


async def test_a_connection_whose_other_end_is_gone_is_noticed_and_made_anew() -> None:
    async with Impostor() as server, opened(server.url) as store:
        given = limiter(store)
        assert await code(given, "shut") == 1
        server.answer = lambda name: b""
        async with Load(given) as load:
            await load.until_refused(200)
            assert load.slowest_s < BOUND_S
            await until(lambda: server.connections > 1, what="another connection")
            server.answer = polite
            await load.until_allowed()


async def test_under_load_a_redis_out_of_memory_answers_as_each_limit_says_and_is_back_with_its_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ratelimit_service")
    async with (
        RedisServer("--maxmemory-policy", "noeviction") as server,
        opened(server.url) as store,
        redis_client.from_url(server.url) as client,
        Load(limiter(store)) as load,
        Load(limiter(store), key="shut-bucket") as buckets,
    ):
        await load.until_allowed()
        await client.config_set("maxmemory", "1")
        await load.until_refused(500)
        await buckets.until_refused(100)
        assert store.available
        assert lacking(store) == "has refused checks of late: OOM"
        assert await code(limiter(store), "open") == 1
        await client.config_set("maxmemory", "0")
        await load.until_allowed(500)
    assert load.slowest_s < BOUND_S
    assert len(told(caplog, "OOM")) == 1
    assert store.nodes[0].errors["OOM"] > 500


async def test_a_user_who_may_do_no_more_than_fixed_windows_need_has_them(caplog: pytest.LogCaptureFixture) -> None:
    async with RedisServer() as server, redis_client.from_url(server.url) as client:
        allowed = ("on", ">pw", "~*", "-@all", "+incrby", "+expire", "+ping", "+select")
        await client.execute_command("ACL", "SETUSER", "counts", *allowed)
        async with opened(server.url.replace("redis://", "redis://counts:pw@")) as store:
            given = limiter(store)
            assert [await code(given, "few") for _ in range(101)] == [1] * 100 + [2]
            # What needs a script follows its on_store_error.
            assert await code(given, "shut-bucket") == 2
            assert lacking(store) == "has refused checks of late: NOPERM"
    assert len(told(caplog, "takes no scripts: NOPERM")) == 1


async def test_a_proxy_that_hangs_up_on_scripts_is_asked_without(caplog: pytest.LogCaptureFixture) -> None:
    def proxy(name: bytes) -> bytes:
        if name == b"SCRIPT LOAD":
            raise ValueError("not known")
        return polite(name)

    async with Impostor(proxy) as server, opened(server.url) as store, Load(limiter(store)) as load:
        await load.until_allowed()
        assert (server.connections, store.available) == (2, True)


async def test_a_server_that_becomes_a_replica_and_primary_again_loses_no_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ratelimit_service")
    async with RedisServer() as server, opened(server.url) as store, redis_client.from_url(server.url) as client:
        given = limiter(store)
        assert [await code(given, "few") for _ in range(60)] == [1] * 60
        await client.replicaof("127.0.0.1", str(server.port + 1))
        assert await code(given, "few") == 2
        await until(lambda: told(caplog, "is not the primary"), what="the replica to be left alone")
        assert await code(given, "few") == 2
        assert (lacking(store), told(caplog, "answers again")) == ("cannot be asked", [])
        await client.replicaof("NO", "ONE")

        async def counts() -> bool:
            return await code(given, "few") == 1

        await until(counts, what="the store to count again")
        assert [await code(given, "few") for _ in range(40)] == [1] * 39 + [2]
        assert (lacking(store), len(told(caplog, "answers again"))) == (None, 1)


async def test_limits_per_second_count_in_a_store_of_their_own_and_each_store_may_be_lost_alone() -> None:
    async with (
        RedisServer() as usual,
        RedisServer() as quick,
        opened(usual.url, per_second=quick.url) as store,
        redis_client.from_url(usual.url) as usual_client,
        redis_client.from_url(quick.url) as quick_client,
    ):
        given = Limiter(SPLIT, store, clock=Clock())
        both = request("d", [("slow", "x")], [("quick", "x")])
        for left in (99, 98):
            response = await given.response(both)
            assert [status.limit_remaining for status in response.statuses] == [left, left]
        assert await usual_client.keys("*") == [b"d_slow_x_1799971200"]
        assert await quick_client.keys("*") == [b"d_quick_x_1800000000"]
        for key in ("slow", "quick"):
            assert (await given.response(request("d", [(key, "x")]))).statuses[0].limit_remaining == 97
        await quick.kill()
        await until(lambda: not store.available, what="the loss to be noticed")
        assert store.lack == "per second: cannot be asked"
        response = await given.response(both)
        assert [status.code for status in response.statuses] == [1, 2]
        assert response.statuses[0].limit_remaining == 96
        assert (await given.response(request("d", [("slow", "x")]))).overall_code == 1
        await quick.start()
        await until(lambda: store.available, what="the store to be back")
        assert (await given.response(both)).overall_code == 1
