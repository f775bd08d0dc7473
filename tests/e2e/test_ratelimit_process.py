# pyright: standard
"""The service as it is run: in processes, configured by files or by the control plane, with a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.identity import RATE_LIMIT_OWNER, Principal
from controlplane.xds.order import Timing
from controlplane.xds.resources import RATE_LIMIT_CONFIG, Resource, Snapshot
from controlplane.xds.server import serve_ads
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as pb
from tests.support.dns import DnsServer
from tests.support.ports import free_port
from tests.support.ratelimit import request
from tests.support.ratelimit_process import ask, metrics, ready, running
from tests.support.redis import RedisServer
from tests.support.waiting import until

OK, OVER = 1, 2
CONFIG = """
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 1000}}
  - {key: strict, rate_limit: {unit: day, requests_per_unit: 1000, on_store_error: deny}}
  - {key: own, rate_limit: {unit: day, requests_per_unit: 12, on_store_error: local}}
"""


async def test_two_workers_share_a_limit_exactly_and_drain_on_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    async with (
        RedisServer(password="s3cret-pw") as redis,
        running(tmp_path, config=str(config), redis=redis.url, workers=2, store_timeout_s=5) as process,
    ):
        bodies = [request("d", [("k", "x")])] * 700
        answers = await asyncio.gather(*(ask(tmp_path / f"rl.sock.{worker}", *bodies) for worker in (0, 1)))
        codes = Counter(response.overall_code for part in answers for response in part)
        assert codes == {OK: 1000, OVER: 400}
        state = await ready(process)
        assert state["status"] == "ready"
        found = await metrics(process)
        labels = {("domain", "d"), ("descriptor", "k")}
        name = "dragoman_ratelimit_hits"
        per_worker = [found[f"{name}_total", frozenset({*labels, ("worker", worker)})] for worker in "01"]
        over = [found[f"{name}_over_total", frozenset({*labels, ("worker", worker)})] for worker in "01"]
        assert per_worker == [700, 700]
        assert sum(over) == 400
        node = ("node", f"127.0.0.1:{redis.port}")
        assert found["dragoman_ratelimit_store_seconds_count", frozenset({("worker", "0"), node})] > 0
        assert found["dragoman_ratelimit_store_node_up", frozenset({("worker", "0"), node})] == 1
        assert await process.stop() == 0
    lines = [json.loads(line) for line in process.output().splitlines()]
    assert {line["service"] for line in lines} == {"ratelimit"}
    assert "s3cret" not in process.output()


async def test_a_service_without_its_redis_starts_says_so_and_recovers(tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    bodies = [request("d", [("k", "x")]), request("d", [("strict", "x")])]
    async with RedisServer() as redis:
        await redis.kill()
        async with running(tmp_path, config=str(config), redis=redis.url, store_timeout_s=1) as process:
            assert [r.overall_code for r in await ask(tmp_path / "rl.sock", *bodies)] == [OK, OVER]
            state = await ready(process)
            assert (state["status"], state["degraded"]) == ("ready", {"store": "cannot be asked"})
            await redis.start()

            async def back() -> bool:
                return not (await ready(process))["degraded"]

            await until(back, what="the store to be back")
            assert [r.overall_code for r in await ask(tmp_path / "rl.sock", *bodies)] == [OK, OK]


async def test_without_its_store_a_limit_is_divided_among_the_workers_of_as_many_as_a_name_has_addresses(
    tmp_path: Path,
) -> None:
    config, name = tmp_path / "limits.yaml", "limiter.test"
    config.write_text(CONFIG)
    away = f"redis://127.0.0.1:{free_port()}"
    body = request("d", [("own", "x")])
    async with (
        DnsServer({name: ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}) as dns,
        running(
            tmp_path,
            config=str(config),
            redis=away,
            workers=2,
            replicas_from=name,
            dns=[f"127.0.0.1:{dns.port}"],
        ) as process,
    ):

        async def divided_among(parts: int) -> bool:
            found = await metrics(process)
            names = [("dragoman_ratelimit_local_parts", frozenset({("worker", worker)})) for worker in "01"]
            return [found[each] for each in names] == [parts, parts]

        await until(lambda: divided_among(6), what="three replicas of two workers")
        for worker in (0, 1):
            answers = await ask(tmp_path / f"rl.sock.{worker}", *[body] * 4)
            assert sorted(each.overall_code for each in answers) == [OK] * 2 + [OVER] * 2
        dns.fail()
        await until(lambda: told(process, "3, as it last was"), what="the DNS to be missed", within_s=20)
        assert await divided_among(6)


async def told(process: Any, words: str) -> bool:
    """Says whether each worker tells so of the number of replicas."""
    workers = (await ready(process))["workers"].values()
    return all(words in each["degraded"].get("replicas", "") for each in workers)


async def test_a_bad_file_at_the_start_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    config, state = tmp_path / "limits.yaml", str(tmp_path / "state")
    config.write_text(CONFIG)
    async with running(tmp_path, config=str(config), state=state):
        pass
    config.write_text(CONFIG.replace("day", "fortnight"))
    async with running(tmp_path, config=str(config), state=state) as process:
        (response,) = await ask(tmp_path / "rl.sock", request("d", [("k", "x")]))
        assert response.statuses[0].current_limit.requests_per_unit == 1000
        degraded = (await ready(process))["degraded"]["config"]
        assert f"{config}:4: descriptors[0].rate_limit.unit: 'fortnight' is none of" in degraded


async def test_without_any_good_configuration_the_service_is_not_ready(tmp_path: Path) -> None:
    async with running(tmp_path, config=str(tmp_path / "none.yaml")) as process:
        state = await ready(process)
        assert (state["status"], state["failing"]) == ("not ready", ["config"])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(tmp_path / "rl.sock", request("d", [("k", "x")]))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def limits(**per_domain: int) -> dict[str, Snapshot]:
    """A snapshot with a domain for each name; a negative limit is a fault (no unit)."""
    resources: dict[str, Resource] = {}
    for domain, limit in per_domain.items():
        message = pb.RateLimitConfig(name=f"ns/{domain}/1", domain=domain)
        policy = message.descriptors.add(key="k").rate_limit
        policy.requests_per_unit = abs(limit)
        policy.unit = pb.DAY if limit >= 0 else pb.UNKNOWN
        policy.dragoman.algorithm = pb.TOKEN_BUCKET
        body = message.SerializeToString(deterministic=True)
        resources[message.name] = Resource.of(RATE_LIMIT_CONFIG, message.name, body, ())
    return {RATE_LIMIT_OWNER: Snapshot({RATE_LIMIT_CONFIG: resources})}


@contextlib.asynccontextmanager
async def serving(cache: SnapshotCache, listen: dict[str, Principal]) -> AsyncGenerator[None]:
    server = await serve_ads(cache, listen=listen)
    try:
        yield
    finally:
        await server.stop()


async def until_ready(process: Any) -> None:
    async def is_ready() -> bool:
        return (await ready(process))["status"] == "ready"

    await until(is_ready, what="the service to be ready", detail=process.tail)


async def limit_of(path: Path, domain: str) -> int | None:
    """Returns the number of a domain's limit; None where Envoy's failure mode is to decide."""
    try:
        (response,) = await ask(path, request(domain, [("k", "x")]))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and "no limits of this domain" in str(error.details()):
            return None
        raise
    return response.statuses[0].current_limit.requests_per_unit


async def test_the_control_plane_gives_changes_and_takes_limits_and_may_be_gone(tmp_path: Path) -> None:
    nacks: list[Nack] = []
    cache = SnapshotCache(timing=Timing(linger_s=0.0), observers=Observers(on_nack=nacks.append))
    address, socket = f"unix:{tmp_path}/xds.sock", tmp_path / "rl.sock"
    listen = {address: Principal("service", "ratelimit")}
    cache.publish(limits(a=5, b=6))
    settings: dict[str, Any] = {"xds": address, "state": str(tmp_path / "state")}

    async def limits_are(a: int, b: int | None) -> bool:
        return (await limit_of(socket, "a"), await limit_of(socket, "b")) == (a, b)

    async with serving(cache, listen), running(tmp_path, **settings) as process:
        await until_ready(process)
        assert await limits_are(5, 6)
        cache.publish(limits(a=7))
        await until(lambda: limits_are(7, None), what="the change and the removal")
        cache.publish(limits(a=-8, b=9))
        await until(lambda: limits_are(7, 9), what="the good limit, the bad one staying as it was")
        assert "descriptors[0].rate_limit.unit: 0 is no unit" in nacks[-1].message
        assert (await ready(process))["status"] == "ready"
    async with running(tmp_path, **settings) as process:
        assert await limits_are(7, 9)
        assert "the control plane cannot be reached" in (await ready(process))["degraded"]["config"]


async def test_it_may_hold_as_many_connections_as_its_bound_says_where_few_files_are_allowed_at_first(
    tmp_path: Path,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        async with running(tmp_path, xds=f"unix:{tmp_path}/nowhere.sock") as process:
            found, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == min(hard, 65_536)


async def test_a_control_plane_without_limits_is_a_configuration_too(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/xds.sock"
    cache = SnapshotCache()
    cache.publish(limits())
    listen = {address: Principal("service", "ratelimit")}
    async with serving(cache, listen), running(tmp_path, xds=address) as process:
        await until_ready(process)
        assert await limit_of(tmp_path / "rl.sock", "a") is None
