# pyright: standard, reportAttributeAccessIssue=false
"""How long checks wait while what they go by changes: many policies and many keys, over xDS and in a file."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.asked import Served, check_that_it, longest_ms, served
from benchmarks.rows import Row
from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb
from ext_authz.check import METHOD
from ext_authz.worker import TYPE_URL
from tests.support.authz import check_request
from tests.support.delta import DeltaServer
from tests.support.waiting import until

_POLICIES = 5_000
_KEYS = 100_000
_PER_S = 2_000.0
_WITHIN_S = 60.0
_ASKED = check_request({"x-api-key": "key-0"}, policy="p0")

Change = Callable[[], Awaitable[None]]


async def measure(*, rounds: int) -> list[Row]:
    """The least of the longest waits of some rounds: whatever else the machine does lengthens them."""
    rows: list[Row] = []
    for what, message, written, seconds in (
        (f"{_POLICIES:,} policies", _policies, _written_policies, 3.0),
        (f"{_KEYS:,} API keys", _keys, _written_keys, 6.0),
    ):
        with tempfile.TemporaryDirectory(prefix="dgb-") as folder:
            file = Path(folder) / "authz.yaml"
            async with DeltaServer(TYPE_URL) as server:
                ways: list[tuple[str, dict[str, Any], list[Change]]] = [
                    (
                        "over xDS",
                        {"config": None, "xds": server.address},
                        [partial(_send, server, server.encoded(message(number))) for number in range(rounds + 1)],
                    ),
                    (
                        "in a file",
                        {"config": str(file)},
                        [partial(_replace, file, written(number)) for number in range(rounds + 1)],
                    ),
                ]
                for how, settings, changes in ways:
                    await changes[0]()
                    async with served("ext_authz", {}, settings, within_s=_WITHIN_S) as service:
                        await until(partial(_passes, service), what="the first policies", within_s=_WITHIN_S)
                        waits = [
                            await longest_ms(service, change, method=METHOD, body=_ASKED, per_s=_PER_S, seconds=seconds)
                            for change in changes[1:]
                        ]
                    title = f"checks while {what} are replaced {how}: longest wait"
                    rows.append(Row(title, min(waits), "ms"))
    return rows


async def _passes(service: Served) -> bool:
    try:
        await check_that_it(service, METHOD, _ASKED)
    except (grpc.aio.AioRpcError, RuntimeError):
        return False
    return True


async def _send(server: DeltaServer, response: bytes) -> None:
    server.send(response)


async def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    await asyncio.to_thread(new.write_text, text, "utf-8")
    new.rename(file)


def _digest(number: int) -> bytes:
    return hashlib.sha256(f"key-{number}".encode()).digest()


def _policies(version: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number in range(_POLICIES):
        policy = pb.Policy(id=f"p{number}")
        policy.api_keys.inline_keys.add(id="k", sha256=_digest(0), client=f"client-{version}")
        found[policy.id] = policy.SerializeToString()
    return found


def _keys(version: int) -> dict[str, bytes]:
    policy = pb.Policy(id="p0")
    for number in range(_KEYS):
        policy.api_keys.inline_keys.add(id=str(number), sha256=_digest(number), client=f"client-{version}")
    return {policy.id: policy.SerializeToString()}


def _written_policies(version: int) -> str:
    key = f"{{id: k, sha256: {_digest(0).hex()}, client: client-{version}}}"
    policies = (f"- id: p{number}\n  apiKeys: {{keys: [{key}]}}" for number in range(_POLICIES))
    return "\n".join(["policies:", *policies])


def _written_keys(version: int) -> str:
    keys = (f"    - {{id: '{n}', sha256: {_digest(n).hex()}, client: client-{version}}}" for n in range(_KEYS))
    return "\n".join(["policies:", "- id: p0", "  apiKeys:", "    keys:", *keys])
