# pyright: standard, reportAttributeAccessIssue=false
"""Other people's services beside ours, where their binaries are given: asked the same, in the same run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from controlplane.engine import Engine
from controlplane.provision.binding import bind
from controlplane.sources.files import FileSource
from controlplane.xds.identity import RATE_LIMIT_OWNER
from controlplane.xds.resources import RATE_LIMIT_CONFIG
from dragoman.grpc_worker import Address
from dragoman.protos.ratelimit.config.ratelimit.v3.rls_conf_pb2 import (
    RateLimitConfig,
    RateLimitDescriptor,
    RateLimitUnit,
)
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.redis import RedisServer
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Peers:
    """Binaries: envoyproxy/ratelimit, and an ext_authz server that takes `--listen unix:PATH`."""

    ratelimit: Path | None = None
    authz: Path | None = None


@asynccontextmanager
async def limiter(
    binary: Path, configs: Iterable[Mapping[str, Any]], redis: RedisServer, home: Path
) -> AsyncIterator[tuple[ChildProcess, Address]]:
    """Starts envoyproxy/ratelimit on the same limits, one thread of Go code, as one worker of ours is."""
    folder = home / "runtime" / "ratelimit" / "config"
    folder.mkdir(parents=True)
    for index, config in enumerate(configs):
        (folder / f"{index}.yaml").write_text(yaml.safe_dump(dict(config)), "utf-8")
    port, debug_port, grpc_port = free_ports(3)
    settings = {
        "GOMAXPROCS": "1",
        "USE_STATSD": "false",
        "DISABLE_STATS": "true",
        "LOG_LEVEL": "error",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(debug_port),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(grpc_port),
        "GRPC_UDS": str(home / "peer.sock"),
        "BACKEND_TYPE": "redis",
        "REDIS_SOCKET_TYPE": "unix",
        "REDIS_URL": redis.unix_path,
        "RUNTIME_ROOT": str(home / "runtime"),
        "RUNTIME_SUBDIRECTORY": "ratelimit",
        "RUNTIME_WATCH_ROOT": "false",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
    }
    async with _running([str(binary)], home / "peer.sock", home, settings) as started:
        yield started


@asynccontextmanager
async def authorizer(binary: Path, home: Path) -> AsyncIterator[tuple[ChildProcess, Address]]:
    """Starts an ext_authz server, one thread of Go code, as one worker of ours is."""
    socket = home / "peer-authz.sock"
    async with _running([str(binary), "--listen", f"unix:{socket}"], socket, home, {"GOMAXPROCS": "1"}) as started:
        yield started


@asynccontextmanager
async def _running(
    command: list[str], socket: Path, home: Path, env: Mapping[str, str]
) -> AsyncIterator[tuple[ChildProcess, Address]]:
    process = ChildProcess(command, log=home / f"{socket.stem}.log", cwd=home, env=env)
    try:
        await listening(process, socket)
        yield process, Address.parse(f"unix:{socket}")
    finally:
        await process.stop()


async def listening(process: ChildProcess, socket: Path, *, within_s: float = 10.0) -> None:
    """Waits until a process takes connections on its Unix socket."""

    async def listens() -> bool:
        if process.exit_code is not None:
            raise AssertionError(f"it has ended\n{process.tail()}")
        _, writer = await asyncio.open_unix_connection(str(socket))
        writer.close()
        return True

    await until(listens, what=f"{socket.name} to be served", within_s=within_s, detail=process.tail)


def limits_of(folder: Path) -> list[dict[str, Any]]:
    """Returns what the control plane tells the limiter of a folder of manifests, as envoyproxy/ratelimit's files."""
    engine = Engine(bind=bind, now=lambda: datetime.now(UTC))
    snapshot = engine.apply(FileSource(folder).read()).snapshots[RATE_LIMIT_OWNER]
    if snapshot is None:
        return []
    configs = (RateLimitConfig.FromString(each.body) for each in snapshot.of_type(RATE_LIMIT_CONFIG).values())
    return [{"domain": each.domain, "descriptors": [_document(d) for d in each.descriptors]} for each in configs]


def _document(descriptor: RateLimitDescriptor) -> dict[str, Any]:
    found: dict[str, Any] = {"key": descriptor.key}
    if descriptor.value:
        found["value"] = descriptor.value
    if descriptor.HasField("rate_limit"):
        limit = descriptor.rate_limit
        unit = RateLimitUnit.Name(limit.unit).lower()
        found["rate_limit"] = {"unit": unit, "requests_per_unit": limit.requests_per_unit}
    if descriptor.descriptors:
        found["descriptors"] = [_document(each) for each in descriptor.descriptors]
    return found
