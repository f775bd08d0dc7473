# pyright: standard, reportAttributeAccessIssue=false
"""A deployment of envoyproxy/ratelimit moves by its image: the same variables, files and Redis."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc.aio
from envoy.service.ratelimit.v3 import rls_pb2
from redis.asyncio import Redis

from tests.support.dragoman import dragoman_command
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.ratelimit import request
from tests.support.redis import RedisServer
from tests.support.statsd import Collector
from tests.support.waiting import until

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CONFIG = """
domain: d
descriptors:
- {key: k, value: v*, rate_limit: {unit: year, requests_per_unit: 3}}
- {key: other, rate_limit: {unit: year, requests_per_unit: 3}}
"""


async def test_the_variables_of_envoyproxy_ratelimit_are_understood(tmp_path: Path) -> None:
    folder = tmp_path / "runtime" / "ratelimit" / "config"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    socket, port = tmp_path / "rl.sock", free_port()
    async with RedisServer() as redis, Collector(tcp=True) as collector:
        env = {
            "RUNTIME_ROOT": str(tmp_path / "runtime"),
            "RUNTIME_SUBDIRECTORY": "ratelimit",
            "REDIS_SOCKET_TYPE": "unix",
            "REDIS_URL": redis.unix_path,
            "CACHE_KEY_PREFIX": "moved:",
            "GRPC_UDS": str(socket),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
            "LIMIT_RESET_HEADER": "x-reset",
            # As there, counts are sent by TCP unless something else is said.
            "STATSD_PORT": str(collector.port),
            "STATS_FLUSH_INTERVAL": "100ms",
            "EXTRA_TAGS": "zone:eu",
            "REDIS_POOL_SIZE": "50",
            "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": "true",
            # Ours, and so that a busy machine is no lost store.
            "DRAGOMAN_STORE_TIMEOUT_S": "5",
            "HOME": str(tmp_path),
        }
        # Beside what another replica, of the original, has counted already.
        window = int(time.time()) // (365 * 86400) * 365 * 86400
        async with Redis.from_url(redis.unix_url) as client:
            await client.set(f"moved:d_k_v1_{window}", "2")
        command = (dragoman_command(), "ratelimit", "--envoyproxy-environment")
        process = ChildProcess(command, log=tmp_path / "rl.log", env=env, cwd=tmp_path)
        try:

            async def serves() -> bool:
                assert process.exit_code is None, process.tail()
                # It is well without its store, and says so.
                ready: Any = (await fetch(port, "/health/ready")).json()
                return (await fetch(port, "/healthcheck")).status == 200 and ready["degraded"] == {}

            await until(serves, what="the service", within_s=30, detail=process.tail)
            async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                ask: Any = channel.unary_unary(METHOD)

                async def asked(*descriptors: list[tuple[str, str]]) -> Any:
                    return rls_pb2.RateLimitResponse.FromString(await ask(request("d", *descriptors)))

                first, second = await asked([("k", "v1")]), await asked([("k", "v1")])
                third = await asked([("k", "v1")], [("other", "a")])
            assert (first.overall_code, second.overall_code) == (1, 2)
            # The other limit of a request that is refused counts nothing.
            assert [(each.code, each.limit_remaining) for each in third.statuses] == [(2, 0), (1, 3)]
            assert [each.key for each in first.response_headers_to_add] == [
                "ratelimit-limit",
                "ratelimit-remaining",
                "x-reset",
            ]
            limit = "ratelimit.service.rate_limit.d.k_v*"
            expected = {
                f"{limit}.total_hits.__zone=eu": 3,
                f"{limit}.within_limit.__zone=eu": 1,
                f"{limit}.near_limit.__zone=eu": 1,
                f"{limit}.over_limit.__zone=eu": 2,
                f"{limit}.over_limit_with_local_cache.__zone=eu": 1,
                "ratelimit.service.rate_limit.d.other.total_hits.__zone=eu": 1,
                "ratelimit.service.rate_limit.d.other.within_limit.__zone=eu": 1,
                "ratelimit_server.ShouldRateLimit.total_requests.__zone=eu": 3,
                "ratelimit.service.config_load_success.__zone=eu": 1,
            }
            await until(lambda: collector.counters == expected, what="counts", detail=lambda: str(collector.counters))
            assert collector.times == {"ratelimit_server.ShouldRateLimit.response_time.__zone=eu": 3}
            assert "REDIS_POOL_SIZE has no effect" in process.output()
        finally:
            await process.stop()


async def test_what_is_not_supported_ends_the_start_by_name(tmp_path: Path) -> None:
    env = {"BACKEND_TYPE": "memcache", "HOME": str(tmp_path)}
    command = (dragoman_command(), "ratelimit", "--envoyproxy-environment")
    process = ChildProcess(command, log=tmp_path / "rl.log", env=env, cwd=tmp_path)
    await until(lambda: process.exit_code is not None, what="the end", within_s=30)
    assert process.exit_code == 1
    assert "BACKEND_TYPE is not supported unless it is redis" in process.output()
