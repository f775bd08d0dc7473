"""Limits for tests of policies, and clients that use them up."""

from __future__ import annotations

from typing import Any

from tests.support.gateway import Gateway
from tests.support.http import Response


def limit(requests: int, unit: str = "Day", *selectors: Any, **more: Any) -> dict[str, Any]:
    found = {"limit": {"requests": requests, "unit": unit}, **more}
    return {**found, "clientSelectors": list(selectors)} if selectors else found


def shared(*rules: Any, **more: Any) -> dict[str, Any]:
    return {"type": "Global", "global": {"rules": list(rules), **more}}


async def statuses(gateway: Gateway, path: str, times: int, **headers: str) -> list[int]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return [(await gateway.get(path, headers=named)).status for _ in range(times)]


async def exhaust(gateway: Gateway, path: str, limit: int, **headers: str) -> Response:
    """Sends requests until one is refused, asserts that the limit was what let the others through, returns the last.

    Envoy waits 100 ms for the service; on a busy machine a request may pass undecided, counted or not.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    decided = undecided = 0
    while True:
        response = await gateway.get(path, headers=named)
        if response.status == 429:
            assert limit - undecided <= decided <= limit, (path, decided, undecided)
            return response
        assert response.status == 200
        if response.header("x-ratelimit-limit") is None:
            undecided += 1
        else:
            decided += 1
        assert decided <= limit, (path, decided, undecided)
        assert undecided < 20, path
