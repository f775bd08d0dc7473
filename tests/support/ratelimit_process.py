# pyright: standard
"""The rate limit service as it is run: in processes of its own, asked over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_service.handler import METHOD
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.ratelimit import response_of
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, *, environment: Mapping[str, str] | None = None, **settings: Any
) -> AsyncGenerator[ChildProcess]:
    """Runs the service with these settings, until it says that it has started."""
    http = free_port()
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"listen": f"unix:{tmp_path}/rl.sock", "http": f"127.0.0.1:{http}", **settings}))
    process = ChildProcess(
        [sys.executable, "-P", "-m", "ratelimit_service", str(file)],
        log=tmp_path / f"service-{http}.log",
        env=environment,
    )

    async def started() -> bool:
        assert process.exit_code is None, process.tail()
        return (await fetch(http, "/health/startup")).status == 200

    try:
        await until(started, what="the service to start", within_s=30, detail=process.tail)
        process.http = http  # type: ignore[attr-defined]
        yield process
    finally:
        await process.stop()


async def ask(path: Path, *bodies: bytes) -> list[Any]:
    """Sends the requests to the worker on a socket, side by side."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call = channel.unary_unary(METHOD)
        return [response_of(answer) for answer in await asyncio.gather(*(call(body) for body in bodies))]


async def metrics(process: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = (await fetch(process.http, "/metrics")).text
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def ready(process: Any) -> Any:
    return (await fetch(process.http, "/health/ready")).json()
