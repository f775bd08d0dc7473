# pyright: standard
"""Limits counted in a real Redis Cluster: exact while slots move; a lost node is missed by its own keys alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio as redis_client
from prometheus_client.parser import text_string_to_metric_families
from redis.crc import key_slot

from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.redis_cluster import RedisClusterStore
from tests.support.http import fetch
from tests.support.ratelimit import Limiter, request
from tests.support.redis_cluster import ClusterNode, RedisCluster
from tests.support.redis_load import CONFIG, Load, code, counter_key, limiter, opened
from tests.support.waiting import until

# Where nobody may be refused but those whose node is away: a busy machine must not look like a slow Redis.
PATIENT_S = 0.3
PARTIAL = ("--cluster-require-full-coverage", "no")


@pytest.fixture
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster(*PARTIAL) as given:
        yield given


@contextlib.asynccontextmanager
async def joined(url: str, *, timeout_s: float = 5.0) -> AsyncGenerator[RedisClusterStore]:
    async with opened(url, timeout_s=timeout_s) as store:
        assert isinstance(store, RedisClusterStore)
        await until(lambda: store.whole, what="a connection to every node")
        yield store


def slot_of(key: str, value: str) -> int:
    return key_slot(counter_key(key, value))


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [line for line in caplog.messages if what in line]


@pytest.mark.parametrize("key", ["few", "few-bucket"])
async def test_ten_thousand_concurrent_requests_over_all_nodes_admit_exactly_each_limit(
    cluster: RedisCluster, key: str
) -> None:
    async with joined(cluster.url) as one, joined(cluster.url) as other:
        limiters = [limiter(one), limiter(other)]
        bodies = {value: request("d", [(key, f"key-{value * 7919}")]) for value in range(25)}
        responses = await asyncio.gather(*(limiters[i // 25 % 2].response(bodies[i % 25]) for i in range(10_000)))
    allowed = Counter(index % 25 for index, response in enumerate(responses) if response.overall_code == 1)
    assert {cluster.owner(slot_of(key, f"key-{value * 7919}")) for value in range(25)} == set(cluster.primaries)
    assert allowed == dict.fromkeys(range(25), 100)


@pytest.mark.parametrize("key", ["open", "shut-bucket"])
async def test_a_resharding_under_load_neither_loses_nor_doubles_a_count(cluster: RedisCluster, key: str) -> None:
    values = [f"key-{number}" for number in range(5)]
    codes: Counter[tuple[str, int]] = Counter()
    async with joined(cluster.url) as one, joined(cluster.url) as other:
        limiters = [limiter(one), limiter(other)]
        moving = asyncio.create_task(move_all(cluster, [slot_of(key, value) for value in values]))
        rounds = 0
        while not moving.done() or rounds < 160:
            rounds += 1
            asked = [(value, given) for value in values for given in limiters for _ in range(4)]
            responses = await asyncio.gather(*(given.response(request("d", [(key, value)])) for value, given in asked))
            codes.update((value, response.overall_code) for (value, _), response in zip(asked, responses, strict=True))
            # Not done before the slots are.
            await asyncio.sleep(0.005)
        moves = await moving
        redirected = [node.errors for store in (one, other) for node in store.nodes]
    assert moves == 3 * len(values)
    assert rounds * 8 > 1000
    assert {value: codes[value, 1] for value in values} == dict.fromkeys(values, 1000)
    assert not any(redirected)


async def move_all(cluster: RedisCluster, slots: list[int]) -> int:
    """Moves each slot through all nodes and back to where it was; returns how many moves that were."""
    moves = 0
    for slot in slots:
        start = cluster.primaries.index(cluster.owner(slot))
        for step in range(3):
            await cluster.move(slot, cluster.primaries[(start + step) % 3], cluster.primaries[(start + step + 1) % 3])
            moves += 1
    return moves


async def test_while_a_slot_is_on_its_way_old_keys_count_where_they_are_and_new_ones_where_they_go(
    cluster: RedisCluster,
) -> None:
    async with joined(cluster.url) as store:
        given = limiter(store)
        slot = slot_of("open", "{tag}old")
        assert slot != slot_of("open", "new")
        source = cluster.owner(slot)
        target = next(node for node in cluster.primaries if node is not source)
        assert await remaining(given, "open", "{tag}old") == 999
        await cluster.begin_move(slot, source, target)
        assert await remaining(given, "open", "{tag}old") == 998
        for key in ("open", "shut-bucket"):
            assert slot_of(key, "{tag}new") == slot
            assert [await remaining(given, key, "{tag}new") for _ in range(3)] == [999, 998, 997]
        for node, expected in (
            (source, {"d_open_{tag}old_"}),
            (target, {"d_open_{tag}new_", "d_shut-bucket_{tag}new_"}),
        ):
            async with redis_client.from_url(node.url) as client:
                keys: list[bytes] = cast("Any", await client.keys("*tag*"))
                assert {key[: key.index(b"}") + 5].decode() for key in keys} == expected
        await cluster.end_move(slot, source, target)
        async with redis_client.from_url(target.url) as client:
            # None that would stay for ever.
            assert all([await client.ttl(key) > 0 for key in await client.keys("*tag*")])
        assert await remaining(given, "open", "{tag}old") == 997
        assert await remaining(given, "open", "{tag}new") == 996


async def remaining(given: Limiter, key: str, value: str) -> int:
    return (await given.response(request("d", [(key, value)]))).statuses[0].limit_remaining


async def test_what_is_decided_together_is_decided_one_by_one_while_its_keys_are_on_two_nodes(
    cluster: RedisCluster,
) -> None:
    async with joined(cluster.url) as store:
        given = limiter(store)
        both = request("d", [("few-bucket", "{tag}x")], [("shut-bucket", "{tag}x")])
        slot = slot_of("few-bucket", "{tag}x")
        source = cluster.owner(slot)
        target = next(node for node in cluster.primaries if node is not source)
        assert await remaining(given, "few-bucket", "{tag}x") == 99
        await cluster.begin_move(slot, source, target)
        for step in range(1, 4):
            response = await given.response(both)
            assert [status.limit_remaining for status in response.statuses] == [99 - step, 1000 - step]
        await cluster.end_move(slot, source, target)
        response = await given.response(both)
        assert [status.limit_remaining for status in response.statuses] == [95, 996]
        assert not any(node.errors for node in store.nodes)


async def test_a_node_that_joins_gets_slots_and_one_that_has_none_is_not_missed(cluster: RedisCluster) -> None:
    async with joined(cluster.url) as store, Load(limiter(store), clients=8) as load:
        await load.until_allowed()
        joining = await cluster.add()
        for client in range(8):
            slot = slot_of("shut", f"client-{client}")
            await cluster.move(slot, cluster.owner(slot), joining)
        await load.until_allowed(20, clients=range(8))
        await until(lambda: f"127.0.0.1:{joining.port}" in {node.name for node in store.nodes}, what="the node")
        async with redis_client.from_url(joining.url) as client:
            assert len(await client.keys("d_shut_*")) == 8
    assert not load.refused


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_a_lost_primary_is_missed_by_its_own_keys_alone_until_a_replica_takes_over(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ratelimit_service")
    async with (
        RedisCluster(*PARTIAL, replicas=1) as cluster,
        joined(cluster.url, timeout_s=PATIENT_S) as store,
        Load(limiter(store), clients=24) as load,
    ):
        victim = cluster.primaries[0]
        owned = [client for client in range(24) if cluster.owner(slot_of("shut", f"client-{client}")) is victim]
        others = [client for client in range(24) if client not in owned]
        await load.until_allowed(10, clients=range(24))
        await lose(victim, how)
        await load.until_refused(5, clients=owned)
        await load.until_allowed(10, clients=range(24))
        assert f"127.0.0.1:{victim.port}" not in {node.name for node in store.nodes}
        if how == "killed":
            await victim.start()
        else:
            victim.resume()

        async def follows() -> bool:
            async with redis_client.from_url(victim.url) as client:
                return (await client.info("replication"))["role"] == "slave"

        await until(follows, what="the lost node to be back as a replica")
        await load.until_allowed(20, clients=range(24))
        assert not [client for client in others if load.refused[client]]
    assert load.slowest_s < PATIENT_S + 0.5
    assert len(told(caplog, f"127.0.0.1:{victim.port} is out of reach")) == 1


async def lose(node: ClusterNode, how: str) -> None:
    if how == "killed":
        await node.kill()
    else:
        node.pause()


async def test_a_cluster_that_serves_nothing_without_all_slots_is_back_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ratelimit_service")
    async with (
        RedisCluster(replicas=1) as cluster,
        joined(cluster.url, timeout_s=PATIENT_S) as store,
        Load(limiter(store), clients=24) as load,
    ):
        await load.until_allowed(10, clients=range(24))
        await cluster.primaries[2].kill()
        await load.until_refused(5)
        await load.until_allowed(50, clients=range(24))
        refused = load.refused.total()
        await load.until_allowed(20, clients=range(24))
        assert load.refused.total() == refused
    assert load.slowest_s < PATIENT_S + 0.5
    assert all(len(told(caplog, f"127.0.0.1:{node.port} says: CLUSTERDOWN")) <= 1 for node in cluster.nodes)


async def test_without_a_cluster_at_the_start_limits_follow_on_store_error_until_it_is_there(
    cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    for node in cluster.nodes:
        await node.kill()
    async with opened(cluster.url, wait=False) as store:
        given = limiter(store)
        assert [await code(given, "open"), await code(given, "shut")] == [1, 2]
        await until(lambda: told(caplog, "no node of the cluster tells the slots"), what="the reason in the log")
        for node in cluster.nodes:
            await node.start()

        async def counts() -> bool:
            return all([await code(given, "shut", f"key-{number}") == 1 for number in range(12)])

        await until(counts, what="every node to count")


async def test_a_server_that_is_no_cluster_says_so_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        ClusterNode("--cluster-enabled", "no") as server,
        opened(f"redis+cluster://127.0.0.1:{server.port}", wait=False) as store,
    ):
        await until(lambda: told(caplog, "cluster support disabled"), what="the reason in the log")
        assert await code(limiter(store), "shut") == 2


async def test_a_script_that_one_node_forgot_is_sent_to_it_again(cluster: RedisCluster) -> None:
    async with joined(cluster.url) as store:
        given = limiter(store)
        for node in cluster.nodes:
            await node.run("SCRIPT", "FLUSH")
        assert [await code(given, "shut-bucket", f"key-{number}") for number in range(12)] == [1] * 12


async def test_every_node_of_a_cluster_is_shown_the_password() -> None:
    async with RedisCluster(*PARTIAL, password="s3cret-pw") as cluster, joined(cluster.url) as store:
        given = limiter(store)
        assert [await code(given, "shut", f"key-{number}") for number in range(12)] == [1] * 12


async def test_health_and_metrics_tell_of_each_node(cluster: RedisCluster, tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock",
        http="127.0.0.1:0",
        config=config,
        redis=cluster.url,
        store_timeout_s=0.5,
        drain_s=0,
    )
    async with worker(settings) as running:
        assert running.http is not None
        port = running.http.port

        async def up() -> dict[str, float]:
            families = text_string_to_metric_families((await fetch(port, "/metrics")).text)
            (family,) = (each for each in families if each.name == "dragoman_ratelimit_store_node_up")
            return {sample.labels["node"]: sample.value for sample in family.samples}

        async def degraded() -> dict[str, str]:
            return (await fetch(port, "/health/ready")).json()["degraded"]

        async def all_up() -> bool:
            return await up() == {f"127.0.0.1:{node.port}": 1 for node in cluster.nodes} and not await degraded()

        await until(all_up, what="every node to be up")
        lost = f"127.0.0.1:{cluster.primaries[1].port}"
        await cluster.primaries[1].kill()

        async def told() -> bool:
            return await degraded() == {"store": f"{lost} cannot be asked"} and (await up())[lost] == 0

        await until(told, what="the loss to be told")
