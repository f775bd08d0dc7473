# pyright: standard, reportAttributeAccessIssue=false
"""The services' rows: CPU a decision, and decisions a second, of one worker under 32 calls in flight."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse

from benchmarks import grpc_load
from benchmarks.rows import Row
from dragoman.grpc_worker import Address
from ext_authz.check import METHOD as CHECK
from ext_authz.keys import NewKey, StoreLocation, create_key
from ratelimit_service.handler import METHOD as SHOULD_RATE_LIMIT
from tests.support.authz import check_request
from tests.support.process import ChildProcess
from tests.support.ratelimit import request
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey, bearer, jwks
from tests.support.waiting import until

_CALLS = 60_000
_ROUNDS = 3
_LIMIT_US = 20.0
_VERDICT_US = 16.0
# What a browser's request carries beside what is checked.
_HEADERS = {
    ":authority": "api.example.com",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate, br",
    "accept-language": "en-GB,en;q=0.9",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "x-forwarded-for": "192.0.2.17",
    "x-forwarded-proto": "https",
}


async def rows() -> list[Row]:
    """Measures both services, each as one process beside its load."""
    return [*await _limiter(), *await _authorizer()]


async def _limiter() -> list[Row]:
    limits = {
        "domain": "bench",
        "descriptors": [{"key": "route", "value": "r", "rate_limit": {"unit": "hour", "requests_per_unit": 2**31}}],
    }
    body = request("bench", [("route", "r")])
    out: list[Row] = []
    async with RedisServer() as redis:
        for name, settings in (("memory", {}), ("Redis", {"redis": redis.unix_url})):
            async with _service("ratelimit_service", limits, settings) as (process, address):
                cost_us, result = await _cost(process, address, SHOULD_RATE_LIMIT, body)
            out += [
                Row(f"rate-limit decision with {name}: CPU of the service", cost_us, "µs", _LIMIT_US),
                Row(f"rate-limit decision with {name}", result.requests_per_s, "decisions/s"),
                Row(f"rate-limit decision with {name}, p99", result.p99_ms, "ms"),
            ]
    return out


async def _authorizer() -> list[Row]:
    key = SigningKey.make("bench", "RS256")
    provider = {"name": "issuer", "issuer": "https://issuer.example", "jwks": {"inline": json.dumps(jwks(key))}}
    policies = {
        "policies": [
            {"id": "bench/jwt/1", "jwt": {"providers": [provider]}},
            {"id": "bench/keys/1", "apiKeys": {"store": True, "extractFrom": {"headers": [{"name": "x-api-key"}]}}},
        ]
    }
    out: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dgb-") as folder:
        keys = Path(folder) / "keys.db"
        made = await asyncio.to_thread(create_key, StoreLocation(keys), NewKey("acme"))
        asked = {
            "JWT": check_request({**_HEADERS, **bearer(key.token())}, policy="bench/jwt/1"),
            "API key": check_request({**_HEADERS, "x-api-key": made.key}, policy="bench/keys/1"),
        }
        async with _service("ext_authz", policies, {"keys": str(keys)}) as (process, address):
            for name, body in asked.items():
                cost_us, result = await _cost(process, address, CHECK, body)
                out += [
                    Row(f"verdict for a cached {name}: CPU of ext_authz", cost_us, "µs", _VERDICT_US),
                    Row(f"verdict for a cached {name}", result.requests_per_s, "verdicts/s"),
                ]
    return out


async def _cost(process: ChildProcess, address: Address, method: str, body: bytes) -> tuple[float, grpc_load.Result]:
    """The least CPU a call, in microseconds, of some rounds; and what the round with it gave."""
    load = grpc_load.Load(method=method, body=body, requests=_CALLS)
    await _check_that_it_lets_pass(address, method, body)
    await grpc_load.run(address, grpc_load.Load(method=method, body=body, requests=_CALLS // 10))
    found: list[tuple[float, grpc_load.Result]] = []
    for _ in range(_ROUNDS):
        before = process.cpu_s()
        result = await grpc_load.run(address, load)
        if result.failed:
            raise RuntimeError(f"{result.failed} of {result.requests} calls failed\n{process.tail()}")
        found.append(((process.cpu_s() - before) / result.requests * 1e6, result))
    return min(found, key=lambda each: each[0])


async def _check_that_it_lets_pass(address: Address, method: str, body: bytes) -> None:
    # A refusal is a good answer too, as far as gRPC is concerned, and would be cheaper.
    async with grpc.aio.insecure_channel(str(address)) as channel:
        answer = await channel.unary_unary(method)(body)
    if method == CHECK:
        passed = not CheckResponse.FromString(answer).HasField("denied_response")
    else:
        passed = RateLimitResponse.FromString(answer).overall_code == RateLimitResponse.OK
    if not passed:
        raise RuntimeError(f"{method} refuses what is to be measured")


@asynccontextmanager
async def _service(
    module: str, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> AsyncIterator[tuple[ChildProcess, Address]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgb-")))
        address = Address.parse(f"unix:{folder}/service.sock")
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), "utf-8")
        told = {"listen": f"unix:{folder}/service.sock", "config": str(folder / "config.yaml"), **settings}
        (folder / "settings.json").write_text(json.dumps(told), "utf-8")
        command = [sys.executable, "-m", module, str(folder / "settings.json")]
        process = ChildProcess(command, log=folder / "log", cwd=folder)
        stack.push_async_callback(process.stop)

        async def listens() -> bool:
            if process.exit_code is not None:
                raise AssertionError(f"{module} has ended\n{process.tail()}")
            _, writer = await asyncio.open_unix_connection(str(folder / "service.sock"))
            writer.close()
            return True

        await until(listens, what=module, detail=process.tail)
        yield process, address
