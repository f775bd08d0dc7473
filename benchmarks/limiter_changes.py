# pyright: standard, reportAttributeAccessIssue=false
"""How long decisions wait while the limits change: 5,000 descriptors replaced over xDS, and in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.asked import Served, check_that_it, longest_ms, served
from benchmarks.rows import Row
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.config_xds import TYPE_URL
from ratelimit_service.handler import METHOD
from tests.support.ratelimit import request
from tests.support.sotw import SotwServer
from tests.support.waiting import until

_DESCRIPTORS = 5_000
_PER_S = 1_000.0
_SECONDS = 2.5
_NODE = "bench"
_ASKED = request("bench", [("route", "0")])

Change = Callable[[int], Callable[[], Awaitable[None]]]
"""Makes ready, before anything is asked, what has the limits be others."""


async def measure(*, rounds: int) -> list[Row]:
    """The least of the longest waits of some rounds: whatever else the machine does lengthens them."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dgb-") as folder:
        file = Path(folder) / "limits.yaml"
        async with SotwServer(TYPE_URL, node_id=_NODE) as server:
            by_xds = {"config": None, "xds": server.address, "node_id": _NODE, "xds_protocol": "sotw"}
            ways: list[tuple[str, dict[str, Any], Change]] = [
                ("over xDS", by_xds, lambda limit: partial(server.publish, _message(limit))),
                ("in a file", {"config": str(file)}, lambda limit: partial(_replace, file, _written(limit))),
            ]
            for how, settings, change in ways:
                await change(1_000_000)()
                async with served("ratelimit_service", {}, settings) as service:
                    await until(partial(_answers, service), what="the first limits")
                    waits = [await _longest_ms(service, change(2_000_000 + number)) for number in range(rounds)]
                title = f"rate-limit decisions while {_DESCRIPTORS:,} descriptors are replaced {how}: longest wait"
                rows.append(Row(title, min(waits), "ms"))
    return rows


async def _answers(service: Served) -> bool:
    try:
        await check_that_it(service, METHOD, _ASKED)
    except grpc.aio.AioRpcError:
        return False
    return True


async def _longest_ms(service: Served, change: Callable[[], Awaitable[None]]) -> float:
    return await longest_ms(service, change, method=METHOD, body=_ASKED, per_s=_PER_S, seconds=_SECONDS)


async def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.rename(file)


def _message(limit: int) -> bytes:
    config = rls_conf_pb2.RateLimitConfig(name="bench", domain="bench")
    for index in range(_DESCRIPTORS):
        descriptor = config.descriptors.add(key="route", value=str(index))
        descriptor.rate_limit.unit = rls_conf_pb2.HOUR
        descriptor.rate_limit.requests_per_unit = limit
    return config.SerializeToString()


def _written(limit: int) -> str:
    rate_limit = f"  rate_limit:\n    unit: hour\n    requests_per_unit: {limit}\n"
    descriptors = "".join(f"- key: route\n  value: '{index}'\n{rate_limit}" for index in range(_DESCRIPTORS))
    return f"domain: bench\ndescriptors:\n{descriptors}"
