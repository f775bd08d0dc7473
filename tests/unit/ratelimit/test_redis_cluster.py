"""How a cluster's map of slots is read, and that nodes which disagree are not followed in circles."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.crc import key_slot

from ratelimit_service.stores.redis_cluster import RedisClusterStore
from ratelimit_service.stores.redis_dial import RefusedError
from ratelimit_service.stores.redis_slots import Range, parse_slots
from ratelimit_service.stores.redis_url import RedisTarget, RedisUrl
from tests.support.ratelimit import Limiter, request
from tests.support.redis_impostor import Impostor, polite
from tests.support.redis_load import BOUND_S, TIMEOUT_S, limiter
from tests.support.waiting import until

ASKED = RedisTarget(host="10.0.0.1", port=7000)


def test_slots_are_read_with_or_without_what_newer_servers_add() -> None:
    reply = [
        [0, 5460, [b"10.0.0.2", 7001, b"id"], [b"10.0.0.3", 7002, b"id"]],
        [5461, 5461, [b"redis.example", 7003, b"id", [b"ip", b"10.0.0.4"]]],
        [5462, 9000, [b"", 7004, b"id"]],
        [9001, 9002, [None, 7005, b"id"]],
        [9003, 9004, [b"?", 7006, b"id"]],
    ]
    assert parse_slots(reply, asked=ASKED) == [
        Range(0, 5460, "10.0.0.2", 7001),
        Range(5461, 5461, "redis.example", 7003),
        Range(5462, 9000, "10.0.0.1", 7004),
        Range(9001, 9002, "10.0.0.1", 7005),
    ]


@pytest.mark.parametrize(
    "reply", [1, b"text", None, [1], [[0, 16384, [b"h", 1]]], [[5, 4, [b"h", 1]]], [[0, 1, [b"h", 0]]], [[0, 1]]]
)
def test_what_is_no_map_of_slots_is_refused(reply: Any) -> None:
    with pytest.raises(RefusedError):
        parse_slots(reply, asked=ASKED)


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def slots_of(server: Impostor) -> bytes:
    return b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n" + bulk("127.0.0.1") + b":%d\r\n" % server.port + bulk("id")


class Node(Impostor):
    """A node of a cluster that says it serves every slot; `verdict` is what it says to a count."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.verdict = b":1\r\n"
        self.asked = 0

    def _reply(self, name: bytes) -> bytes:
        if name == b"CLUSTER INFO":
            return bulk("cluster_state:ok")
        if name == b"CLUSTER SLOTS":
            return slots_of(self)
        if name == b"INCRBY":
            self.asked += 1
            return self.verdict
        return polite(name)


async def decided(given: Limiter) -> tuple[int, float]:
    started = time.monotonic()
    response = await given.response(request("d", [("shut", "x")]))
    return response.overall_code, time.monotonic() - started


async def test_redirections_in_a_circle_end_and_cost_no_more_than_the_time_out() -> None:
    async with Node() as one, Node() as other:
        store = RedisClusterStore(RedisUrl.parse(f"redis+cluster://127.0.0.1:{one.port}"), timeout_s=TIMEOUT_S)
        store.start()
        try:
            await until(lambda: store.available, what="the node")
            given = limiter(store)
            assert (await decided(given))[0] == 1
            slot = key_slot(b"d_shut_x_1799971200")
            for kind in (b"MOVED", b"ASK"):
                one.verdict = b"-%b %d 127.0.0.1:%d\r\n" % (kind, slot, other.port)
                other.verdict = b"-%b %d 127.0.0.1:%d\r\n" % (kind, slot, one.port)
                before = one.asked + other.asked
                code, took_s = await decided(given)
                assert code == 2
                assert took_s < BOUND_S
                assert one.asked + other.asked - before <= 6
            for verdict in (
                b"-MOVED 99999 127.0.0.1:1\r\n",
                b"-MOVED x\r\n",
                b"-MOVED 1 :x\r\n",
                b"-ASK\r\n",
                b"-ASK 1 ?:6379\r\n",
                b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
                b"-CLUSTERDOWN The cluster is down\r\n",
                b"-CROSSSLOT Keys in request don't hash to the same slot\r\n",
            ):
                one.verdict = other.verdict = verdict
                code, took_s = await decided(given)
                assert code == 2, verdict
                assert took_s < BOUND_S
            one.verdict = other.verdict = b":1\r\n"

            async def counts() -> bool:
                return (await decided(given))[0] == 1

            await until(counts, what="the node to count again")
        finally:
            await store.close()


async def test_a_redirection_to_a_node_that_is_not_there_waits_no_longer_than_the_time_out() -> None:
    async with Node() as one, Impostor(lambda name: b"") as silent:
        store = RedisClusterStore(RedisUrl.parse(f"redis+cluster://127.0.0.1:{one.port}"), timeout_s=TIMEOUT_S)
        store.start()
        try:
            await until(lambda: store.available, what="the node")
            given = limiter(store)
            one.verdict = b"-ASK 1 127.0.0.1:%d\r\n" % silent.port
            answers = await asyncio.gather(*(decided(given) for _ in range(100)))
            assert {code for code, _ in answers} == {2}
            assert max(took_s for _, took_s in answers) < BOUND_S
        finally:
            await store.close()
