# pyright: standard, reportAttributeAccessIssue=false
"""The services' rows: CPU a decision, and decisions a second, of one worker under 32 calls in flight."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse

from benchmarks import grpc_load, peers
from benchmarks.cpu import cpu_s
from benchmarks.peers import Peers
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

_CALLS = 30_000
_ROUNDS = 4
_LIMIT_US = 20.0
_LIMIT_RATIO = 0.5
_VERDICT_US = 16.0
_VERDICT_RATIO = 0.8
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


async def measure(given: Peers) -> list[Row]:
    """Measures both services, each as one process beside its load; where peers are given, in turns with them."""
    return [*await _limiter(given.ratelimit), *await _authorizer(given.authz)]


async def _limiter(peer: Path | None) -> list[Row]:
    limits = {
        "domain": "bench",
        "descriptors": [{"key": "route", "value": "r", "rate_limit": {"unit": "hour", "requests_per_unit": 2**31}}],
    }
    body = request("bench", [("route", "r")])
    out: list[Row] = []
    async with RedisServer() as redis, AsyncExitStack() as stack:
        memory = await stack.enter_async_context(_service("ratelimit_service", limits, {}))
        ours = await stack.enter_async_context(_service("ratelimit_service", limits, {"redis": redis.unix_url}))
        asked = [("memory", memory), ("Redis", ours)]
        if peer is not None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgb-")))
            started = await stack.enter_async_context(peers.limiter(peer, [limits], redis, home))
            asked.append(("Redis, envoyproxy/ratelimit", started))
        costs = await _costs([(*started, SHOULD_RATE_LIMIT, body) for _, started in asked])
    for (name, _), (cost_us, result) in zip(asked, costs, strict=True):
        budget = _LIMIT_US if "envoyproxy" not in name else None
        out += [
            Row(f"rate-limit decision with {name}: CPU of the service", cost_us, "µs", budget),
            Row(f"rate-limit decision with {name}", result.requests_per_s, "decisions/s"),
            Row(f"rate-limit decision with {name}, p99", result.p99_ms, "ms"),
        ]
    if peer is not None:
        ratio = costs[1][0] / costs[2][0]
        out.append(Row("rate-limit decision with Redis: CPU against envoyproxy/ratelimit", ratio, "×", _LIMIT_RATIO))
    return out


async def _authorizer(peer: Path | None) -> list[Row]:
    key = SigningKey.make("bench", "RS256")
    provider = {"name": "issuer", "issuer": "https://issuer.example", "jwks": {"inline": json.dumps(jwks(key))}}
    policies = {
        "policies": [
            {"id": "bench/jwt/1", "jwt": {"providers": [provider]}},
            {"id": "bench/keys/1", "apiKeys": {"store": True, "extractFrom": {"headers": [{"name": "x-api-key"}]}}},
        ]
    }
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgb-")))
        keys = folder / "keys.db"
        made = await asyncio.to_thread(create_key, StoreLocation(keys), NewKey("acme"))
        ours = await stack.enter_async_context(_service("ext_authz", policies, {"keys": str(keys)}))
        with_jwt = check_request({**_HEADERS, **bearer(key.token())}, policy="bench/jwt/1")
        with_key = check_request({**_HEADERS, "x-api-key": made.key}, policy="bench/keys/1")
        asked = [("a cached JWT", ours, with_jwt), ("a cached API key", ours, with_key)]
        if peer is not None:
            theirs = await stack.enter_async_context(peers.authorizer(peer, folder))
            asked.append(("a JWT by a minimal grpc-go server", theirs, with_jwt))
        costs = await _costs([(*started, CHECK, body) for _, started, body in asked])
    out: list[Row] = []
    for (name, started, _), (cost_us, result) in zip(asked, costs, strict=True):
        budget = _VERDICT_US if started is ours else None
        out += [
            Row(f"verdict for {name}: CPU of the server", cost_us, "µs", budget),
            Row(f"verdict for {name}", result.requests_per_s, "verdicts/s"),
        ]
    if peer is not None:
        ratio = costs[0][0] / costs[2][0]
        out.append(Row("verdict for a cached JWT: CPU against a minimal grpc-go server", ratio, "×", _VERDICT_RATIO))
    return out


_Asked = tuple[ChildProcess, Address, str, bytes]
_Cost = tuple[float, grpc_load.Result]


async def _costs(asked: Sequence[_Asked]) -> list[_Cost]:
    """The least CPU a call, in microseconds, of some rounds in turns; and what the round with it gave."""
    for _, address, method, body in asked:
        await _check_that_it_lets_pass(address, method, body)
        await grpc_load.run(address, grpc_load.Load(method=method, body=body, requests=_CALLS // 10))
    found: list[list[_Cost]] = [[] for _ in asked]
    for _ in range(_ROUNDS):
        for each, costs in zip(asked, found, strict=True):
            costs.append(await _cost(*each))
    return [min(costs, key=lambda each: each[0]) for costs in found]


async def _cost(process: ChildProcess, address: Address, method: str, body: bytes) -> _Cost:
    before_s = cpu_s(process.pid)
    result = await grpc_load.run(address, grpc_load.Load(method=method, body=body, requests=_CALLS))
    if result.failed:
        raise RuntimeError(f"{result.failed} of {result.requests} calls failed\n{process.tail()}")
    return (cpu_s(process.pid) - before_s) / result.requests * 1e6, result


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
        await peers.listening(process, folder / "service.sock")
        yield process, address
