"""That no counter stays in Redis for ever: whatever begins one is followed by its expiry, on the key that has begun."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from ratelimit_service.checks import Check
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_connection import RedisConnection
from ratelimit_service.stores.redis_node import NodeOptions, RedisNode
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import loaded, request

LIMITS = "{domain: d, descriptors: [{key: k, rate_limit: {unit: minute, requests_per_unit: 100}}]}"
NOW = 1_800_000_030.0
FIRST, SECOND = b"d_k_v_1800000000", b"d_k_v_1800000060"


class Wire(asyncio.Transport):
    """Keeps what is written, as commands."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[list[bytes]] = []

    def write(self, data: Any) -> None:
        words = [word for word in bytes(data).split(b"\r\n") if word[:1] not in (b"$", b"")]
        while words:
            count = int(words.pop(0)[1:])
            self.sent.append(words[:count])
            del words[:count]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        pass


class Asked(Flight):
    """A question."""

    def __init__(self, check: Check, now: float) -> None:
        super().__init__()
        self.replies: list[int | None] = [None]
        self.left, self.asked_at = 1, now
        self.sent_at = asyncio.get_running_loop().time()
        self.question = self, 0, check

    def settle(self) -> None:
        pass


class Redis:
    """A node, its connection, and a check on one counter."""

    def __init__(self, limits: str = LIMITS, *, timeout_s: float = 5.0) -> None:
        async def find() -> RedisTarget:
            raise OSError

        self.node = RedisNode("redis", find, NodeOptions())
        self.wire = Wire()
        self.connection = RedisConnection(generation=1, timeout_s=timeout_s)
        self.connection.connection_made(self.wire)
        self.node.connection = self.connection
        (self.check,) = Planner(loaded(limits), StatsRegistry()).plan(request("d", [("k", "v")])).checks

    def ask(self, now: float, *, hits: int = 1) -> Asked:
        check = self.check._replace(hits=hits)
        asked = Asked(check, now)
        self.node.ask(self.connection, check, now, cast("Any", asked.question))
        return asked

    async def answered(self, *replies: int) -> list[list[bytes]]:
        """Has the server reply; returns what was sent because of that."""
        await asyncio.sleep(0)
        before = len(self.wire.sent)
        self.connection.data_received(b"".join(b":%d\r\n" % reply for reply in replies))
        await asyncio.sleep(0)
        return self.wire.sent[before:]


@pytest.mark.parametrize("hits", [0, 1, 12])
async def test_the_first_count_of_a_window_goes_out_with_its_expiry_and_the_others_without(hits: int) -> None:
    redis = Redis()
    for now in (NOW, NOW, NOW + 60):
        redis.ask(now, hits=hits)
    assert await redis.answered(hits, 1, 2 * hits or 1, hits, 1) == []
    count = [b"INCRBY", FIRST, b"%d" % hits]
    assert redis.wire.sent[:3] == [count, [b"EXPIRE", FIRST, b"60"], count]
    assert redis.wire.sent[3:] == [[b"INCRBY", SECOND, b"%d" % hits], [b"EXPIRE", SECOND, b"60"]]


async def test_a_window_of_several_units_expires_after_all_of_them() -> None:
    redis = Redis(LIMITS.replace("unit: minute", "unit: minute, unit_multiplier: 7"))
    redis.ask(NOW)
    await asyncio.sleep(0)
    (count, expiry) = redis.wire.sent
    assert (count[0], expiry[0], count[1] == expiry[1], expiry[2]) == (b"INCRBY", b"EXPIRE", True, b"420")


async def test_a_counter_that_the_server_lost_and_began_anew_expires_though_its_window_has_passed_meanwhile() -> None:
    redis = Redis()
    redis.ask(NOW)
    assert await redis.answered(1, 1) == []
    redis.ask(NOW)
    redis.ask(NOW + 60)
    # The first of these says that the counter was gone.
    assert await redis.answered(1, 1, 1) == [[b"EXPIRE", FIRST, b"60"]]


async def test_a_counter_that_begins_when_its_question_was_given_up_expires_all_the_same() -> None:
    redis = Redis(timeout_s=0.001)
    redis.ask(NOW)
    assert await redis.answered(1, 1) == []
    asked = redis.ask(NOW)
    await asyncio.wait_for(redis.connection.stalled.wait(), 5)
    assert (asked.left, asked.replies) == (0, [None])
    assert await redis.answered(1) == [[b"EXPIRE", FIRST, b"60"]]
    redis.connection.abort("enough")


async def test_a_question_that_is_asked_again_counts_and_expires_in_the_window_that_it_was_asked_in() -> None:
    redis = Redis()
    asked = redis.ask(NOW)
    redis.ask(NOW + 60)
    resent = redis.node.resent(cast("Any", asked.question))
    resent.asking = True
    redis.node.ask_again(resent)
    await asyncio.sleep(0)
    assert redis.wire.sent[4:] == [[b"ASKING"], [b"INCRBY", FIRST, b"1"], [b"ASKING"], [b"EXPIRE", FIRST, b"60"]]
    redis.ask(NOW + 60)
    assert await redis.answered(1, 1, 1, 1, 1, 1, 1, 1, 2) == []
    assert redis.wire.sent[8:] == [[b"INCRBY", SECOND, b"1"]]
    resent.close()
