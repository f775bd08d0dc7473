# pyright: standard
"""One worker's memory as a store of the others: the same answers, over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import fields, replace
from pathlib import Path
from random import Random

import pytest

from ratelimit_service.model import Algorithm, Rule, Unit
from ratelimit_service.stores import shared_rule
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.shared_server import SharedMemory
from ratelimit_service.stores.shared_store import SharedStore
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.waiting import until

OK, OVER = 1, 2
KEYS = ["second", "minute", "bucket", "sliding", "leaky", "flight", "strict"]
CONFIG = """
domain: d
descriptors:
  - {key: second, rate_limit: {unit: second, requests_per_unit: 4}}
  - {key: minute, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: bucket, rate_limit: {unit: minute, requests_per_unit: 20, algorithm: token_bucket, burst: 6}}
  - {key: sliding, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: leaky, rate_limit: {unit: second, requests_per_unit: 7, algorithm: leaky_bucket}}
  - {key: flight, rate_limit: {unit: minute, requests_per_unit: 6, algorithm: concurrency, lease_time: 5s}}
  - {key: strict, rate_limit: {unit: day, requests_per_unit: 5, on_store_error: deny}}
"""
SUPPORTED = [each for each in Algorithm if Rule("d", "k", Unit.DAY, 7, algorithm=each).fault() is None]
COUNTED = {*shared_rule.FIELDS}
NOT_COUNTED = {
    *("domain", "path", "name", "replaces", "unlimited", "shadow_mode", "quota_mode", "detailed_metric"),
    *("value_to_metric", "hidden", "shared", "lease", "mode", "on_store_error"),
}


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dgm-") as folder:
        yield Path(folder) / "memory.sock"


@contextlib.asynccontextmanager
async def serving(path: Path, *, clock: Clock, max_keys: int = 1000) -> AsyncGenerator[SharedMemory]:
    memory = SharedMemory(max_keys=max_keys, clock=clock)
    await memory.serve(path)
    try:
        yield memory
    finally:
        await memory.close()


@contextlib.asynccontextmanager
async def asking(path: Path) -> AsyncGenerator[SharedStore]:
    store = SharedStore(path, timeout_s=5)
    store.start()
    try:
        await until(lambda: store.available, what="the connection")
        yield store
    finally:
        await store.close()


async def code(limiter: Limiter, key: str, value: str = "x") -> int:
    return (await limiter.response(request("d", [(key, value)]))).overall_code


@pytest.mark.parametrize("seed", range(10))
async def test_a_worker_that_asks_is_answered_as_the_one_that_counts(socket: Path, seed: int) -> None:
    random, clock = Random(seed), Clock()
    async with serving(socket, clock=clock), asking(socket) as store:
        near, far = Limiter(CONFIG, MemoryStore(), clock=clock), Limiter(CONFIG, store, clock=clock)
        for _ in range(300):
            clock.now += random.choice([0, 0, 0, 0.1, 1, 7, 61])
            asked = [[(random.choice(KEYS), random.choice("ab"))] for _ in range(2)]
            body = request("d", *asked, hits=random.choice([0, 0, 3]), own_hits=[random.choice([None, 0, 2])])
            assert await far.response(body) == await near.response(body)


async def test_two_workers_count_in_the_same_memory(socket: Path) -> None:
    clock = Clock()
    async with serving(socket, clock=clock) as memory, asking(socket) as store:
        own, other = Limiter(CONFIG, memory, clock=clock), Limiter(CONFIG, store, clock=clock)
        codes = [await code(limiter, "strict") for _ in range(4) for limiter in (own, other)]
        assert codes == [OK] * 5 + [OVER] * 3
        assert memory.keys == 1


async def test_a_full_memory_leaves_new_keys_to_on_store_error(socket: Path) -> None:
    clock = Clock()
    async with serving(socket, clock=clock, max_keys=1), asking(socket) as store:
        limiter = Limiter(CONFIG, store, clock=clock)
        assert [await code(limiter, "strict", value) for value in "abb"] == [OK, OVER, OVER]
        assert await code(limiter, "minute", "c") == OK
        assert store.nodes[0].errors["FULL"] == 3


async def test_a_worker_that_counts_anew_is_found_again_and_told_the_rules(socket: Path) -> None:
    clock = Clock()
    async with asking_later(socket) as store:
        limiter = Limiter(CONFIG, store, clock=clock)
        for _ in range(2):
            async with serving(socket, clock=clock):
                await until(lambda: store.available, what="the connection")
                assert [await code(limiter, "strict") for _ in range(5)] == [OK] * 5
            await until(lambda: not store.available, what="the end of the connection")
            assert await code(limiter, "strict") == OVER


@contextlib.asynccontextmanager
async def asking_later(path: Path) -> AsyncGenerator[SharedStore]:
    store = SharedStore(path, timeout_s=5)
    store.start()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"*2\r\n$4\r\nRULE\r\n$2\r\n{}\r\n",
        b"*1\r\n$4\r\nTAKE\r\n",
        b"*0\r\n",
        b":1\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"*3\r\n$4\r\nRULE\r\n$4\r\n[[[[\r\n:1\r\n",
    ],
)
async def test_who_makes_no_sense_is_hung_up_on_and_the_others_are_served(socket: Path, sent: bytes) -> None:
    clock = Clock()
    async with serving(socket, clock=clock), asking(socket) as store:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        assert await code(Limiter(CONFIG, store, clock=clock), "strict") == OK


def test_everything_of_a_rule_that_decisions_depend_on_is_told() -> None:
    assert {each.name for each in fields(Rule)} == COUNTED | NOT_COUNTED


@pytest.mark.parametrize("algorithm", SUPPORTED)
def test_a_rule_is_read_as_it_was_written(algorithm: Algorithm) -> None:
    rule = Rule("d", "k", Unit.DAY, 7, algorithm=algorithm, burst=3, delay_s=0.5, lease_time_s=2.5, name="n")
    told = shared_rule.read(shared_rule.written(rule).body).rule
    assert told == replace(rule, domain="", path="", name="")
