# pyright: standard
"""Limits counted in the primary that real Sentinels name: it dies, freezes, is replaced, and may come back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from ratelimit_service.stores.redis_open import RedisCounters
from tests.support.ratelimit import request
from tests.support.redis_load import BOUND_S, Load, code, limiter, opened
from tests.support.redis_sentinels import SentinelSet
from tests.support.waiting import until


@pytest.fixture
async def given() -> AsyncIterator[SentinelSet]:
    async with SentinelSet() as servers:
        yield servers


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [line for line in caplog.messages if what in line]


def port_of(store: RedisCounters) -> int:
    (node,) = store.nodes
    return node.target.port if node.target is not None else 0


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_under_load_a_primary_that_goes_is_replaced_and_its_return_changes_nothing(
    given: SentinelSet, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ratelimit_service")
    # A busy machine must not look like a slow Redis.
    patient_s = 0.3
    async with opened(given.url, timeout_s=patient_s) as store, Load(limiter(store)) as load:
        old = await given.primary()
        await load.until_allowed()
        if how == "killed":
            await old.kill()
        else:
            old.pause()
        await load.until_refused()
        await load.until_allowed()
        new = await given.primary()
        assert new is not old
        if how == "killed":
            await old.start()
        else:
            old.resume()

        refused = load.refused.total()
        await load.until_allowed(500)
        assert load.refused.total() == refused
    assert load.slowest_s < patient_s + 0.5
    assert len(told(caplog, "is out of reach")) == 1
    assert len(told(caplog, "answers again after")) == 1
    assert told(caplog, f"the primary of counters is 127.0.0.1:{new.port} now")


async def test_an_operators_failover_refuses_hardly_anybody_and_counts_go_on(given: SentinelSet) -> None:
    async with opened(given.url) as store:
        limits = limiter(store)
        body = request("d", [("open", "x")])
        for _ in range(5):
            await limits.response(body)
        old = await given.primary()
        async with Load(limits) as load:
            await load.until_allowed()
            await given.fail_over()

            async def changed() -> bool:
                return await given.primary() is not old

            await until(changed, what="the failover")
            new = await given.primary()
            await until(lambda: store.available and port_of(store) == new.port, what="the new primary to be asked")
        assert load.slowest_s < BOUND_S
        # Replicated before the failover, so it is known to the new primary.
        assert (await limits.response(body)).statuses[0].limit_remaining == 994


async def test_dead_and_frozen_sentinels_are_passed_over(given: SentinelSet) -> None:
    given.sentinels[0].pause()
    await given.sentinels[1].kill()
    async with opened(given.url) as store:
        assert await code(limiter(store), "shut") == 1


async def test_without_sentinels_limits_follow_on_store_error_until_one_is_there(
    given: SentinelSet, caplog: pytest.LogCaptureFixture
) -> None:
    for sentinel in given.sentinels:
        await sentinel.kill()
    async with opened(given.url, wait=False) as store:
        limits = limiter(store)
        assert await code(limits, "open") == 1
        assert await code(limits, "shut") == 2
        await until(lambda: told(caplog, "no Sentinel names the primary of counters"), what="the reason in the log")
        await given.sentinels[2].start()
        await until(lambda: store.available, what="the primary to be found")
        assert await code(limits, "shut") == 1


async def test_a_failover_that_nobody_told_of_is_noticed_all_the_same(given: SentinelSet) -> None:
    async with opened(given.url) as store, Load(limiter(store)) as load:
        old = await given.primary(seen_by=1)
        await load.until_allowed()
        # It is the first that is listened to.
        given.sentinels[0].pause()
        await given.fail_over(by=1)

        async def changed() -> bool:
            return await given.primary(seen_by=1) is not old

        await until(changed, what="the failover")
        await old.kill()
        await load.until_allowed(500)
    assert load.slowest_s < BOUND_S


async def test_sentinels_and_servers_have_passwords_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with SentinelSet(sentinels=1, password="s3cret-server", sentinel_password="s3cret-watch") as given:
        async with opened(given.url) as store:
            assert await code(limiter(store), "shut") == 1
        async with opened(given.url.replace("s3cret-watch", "s3cret-wrong"), wait=False) as store:
            await until(lambda: told(caplog, "WRONGPASS"), what="the refusal in the log")
            assert await code(limiter(store), "shut") == 2
    assert not told(caplog, "s3cret")
