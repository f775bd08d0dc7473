# pyright: standard, reportAttributeAccessIssue=false
"""A service as a process of its own, and what a call costs it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse

from benchmarks import grpc_load, peers
from benchmarks.cpu import cpu_s
from dragoman.grpc_worker import Address
from ext_authz.check import METHOD as CHECK
from tests.support.process import ChildProcess

CALLS = 30_000
ROUNDS = 4
_BEFORE_S = 0.3


@dataclass(frozen=True, slots=True)
class Served:
    """A service that runs: its process, and where each of its workers is asked."""

    process: ChildProcess
    addresses: Sequence[Address]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU a call in microseconds, and what the load saw meanwhile."""

    cpu_us: float
    load: grpc_load.Result


@asynccontextmanager
async def served(
    module: str,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    workers: int = 1,
    within_s: float = 10.0,
) -> AsyncIterator[Served]:
    """Starts a service of ours on a Unix socket for each worker."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgb-")))
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), "utf-8")
        told = {"listen": f"unix:{folder}/service.sock", "config": str(folder / "config.yaml"), **settings}
        names = ["service.sock"]
        if workers > 1:
            told["workers"] = workers
            names = [f"service.sock.{index}" for index in range(workers)]
        (folder / "settings.json").write_text(json.dumps(told), "utf-8")
        process = ChildProcess(
            [sys.executable, "-m", module, str(folder / "settings.json")], log=folder / "log", cwd=folder
        )
        stack.push_async_callback(process.stop)
        for name in names:
            await peers.listening(process, folder / name, within_s=within_s)
        yield Served(process, [Address.parse(f"unix:{folder / name}") for name in names])


async def costs(asked: Sequence[tuple[Served, grpc_load.Load]], *, rounds: int = ROUNDS) -> list[Cost]:
    """The least CPU a call of some rounds in turns, and what the round with it gave."""
    for service, load in asked:
        await grpc_load.run(service.addresses, load)
    found: list[list[Cost]] = [[] for _ in asked]
    for _ in range(rounds):
        for (service, load), each in zip(asked, found, strict=True):
            each.append(await cost(service, load))
    return [min(each, key=lambda one: one.cpu_us) for each in found]


async def cost(service: Served, load: grpc_load.Load) -> Cost:
    """What one load costs; raises RuntimeError where a call fails."""
    before_s = cpu_s(service.process.pid)
    result = await grpc_load.run(service.addresses, load)
    if result.failed:
        raise RuntimeError(f"{result.failed} of {result.requests} calls failed\n{service.process.tail()}")
    return Cost((cpu_s(service.process.pid) - before_s) / result.requests * 1e6, result)


async def longest_ms(
    service: Served, change: Callable[[], Awaitable[None]], *, method: str, body: bytes, per_s: float, seconds: float
) -> float:
    """Returns the longest wait of a call while something changes; raises RuntimeError where one fails."""
    load = grpc_load.Load(method=method, body=body, per_s=per_s, seconds=seconds)
    asked = asyncio.create_task(grpc_load.run(service.addresses, load))
    await asyncio.sleep(_BEFORE_S)
    await change()
    result = await asked
    if result.failed:
        raise RuntimeError(f"{result.failed} of {result.requests} calls failed\n{service.process.tail()}")
    return result.longest_ms


async def check_that_it(service: Served, method: str, body: bytes, *, passes: bool = True) -> None:
    """Raises RuntimeError unless it answers as is to be measured: gRPC is as content with a refusal."""
    async with grpc.aio.insecure_channel(str(service.addresses[0])) as channel:
        answer = await channel.unary_unary(method)(body)
    if method == CHECK:
        passed = not CheckResponse.FromString(answer).HasField("denied_response")
    else:
        passed = RateLimitResponse.FromString(answer).overall_code == RateLimitResponse.OK
    if passed is not passes:
        raise RuntimeError(f"{method} {'refuses' if passes else 'allows'} what is to be measured")
