# pyright: standard, reportAttributeAccessIssue=false
"""The authorizer's rows: CPU a verdict, and verdicts a second, of one worker under 32 calls in flight."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks import authz_changes, peers
from benchmarks.asked import CALLS, Served, check_that_it, costs, served
from benchmarks.grpc_load import Load
from benchmarks.rows import Row
from ext_authz.check import METHOD as CHECK
from ext_authz.keys import NewKey, StoreLocation, create_key
from tests.support.authz import check_request
from tests.support.tokens import SigningKey, bearer, jwks

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


async def measure(peer: Path | None, *, quick: bool = False) -> list[Row]:
    """Measures ext_authz, one process beside its load; where the peer is given, in turns with it."""
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
        ours = await stack.enter_async_context(served("ext_authz", policies, {"keys": str(keys)}))
        with_jwt = check_request({**_HEADERS, **bearer(key.token())}, policy="bench/jwt/1")
        with_key = check_request({**_HEADERS, "x-api-key": made.key}, policy="bench/keys/1")
        asked = [("a cached JWT", ours, with_jwt), ("a cached API key", ours, with_key)]
        if peer is not None:
            process, address = await stack.enter_async_context(peers.authorizer(peer, folder))
            asked.append(("a JWT by a minimal grpc-go server", Served(process, [address]), with_jwt))
        for _, service, body in asked:
            await check_that_it(service, CHECK, body)
        found = await costs([(service, Load(method=CHECK, body=body, requests=CALLS)) for _, service, body in asked])
    out: list[Row] = []
    for (name, service, _), each in zip(asked, found, strict=True):
        budget = _VERDICT_US if service is ours else None
        out += [
            Row(f"verdict for {name}: CPU of the server", each.cpu_us, "µs", budget),
            Row(f"verdict for {name}", each.load.requests_per_s, "verdicts/s"),
        ]
    if peer is not None:
        ratio = found[0].cpu_us / found[2].cpu_us
        out.append(Row("verdict for a cached JWT: CPU against a minimal grpc-go server", ratio, "×", _VERDICT_RATIO))
    return out + await authz_changes.measure(rounds=2 if quick else 4)
