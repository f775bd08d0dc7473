"""Limits that count by what clients send, where that is no text."""

from __future__ import annotations

import asyncio

from tests.e2e.policy_manifests import limits, routes
from tests.e2e.policy_services import ratelimit
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream


async def test_a_value_that_is_no_utf_8_escapes_no_limit_of_its_route(upstream: Upstream) -> None:
    condition = {
        "headers": [{"name": "x-user", "type": "Distinct"}],
        "queryParams": [{"name": "u", "type": "Distinct"}],
    }
    rules = [{"limit": {"requests": 2, "unit": "Day"}, "clientSelectors": [condition]}]
    files = {"a.yaml": [*routes(upstream, "api"), limits("api", {"global": {"rules": rules}})]}
    async with Gateway(files) as gateway, ratelimit(gateway):
        (port,) = gateway.ports.values()

        async def status(user: bytes, parameter: bytes) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = b"GET /api?u=%b HTTP/1.1\r\nHost: a\r\nX-User: %b\r\nConnection: close\r\n\r\n"
            writer.write(request % (parameter, user))
            line = await reader.readline()
            writer.close()
            return int(line.split()[1])

        await gateway.answers("/api?u=0", 429, headers={"x-user": "first"})
        for user, parameter in ((b"ann", b"1"), (b"\xff\xfe", b"1"), (b"ann", b"%ff"), (b"\xc3\x28", b"%c3%28")):
            assert [await status(user, parameter) for _ in range(3)] == [200, 200, 429], (user, parameter)
