"""A worker of the rate limit service that stands still, though its connections do: the others answer."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controlplane.translate.filters import ratelimit as filters
from tests.e2e.policy_limits import limit, shared
from tests.e2e.policy_manifests import limits, routes
from tests.e2e.policy_services import listen
from tests.support.gateway import Gateway
from tests.support.http import Connection
from tests.support.ratelimit_process import running
from tests.support.upstream import Upstream
from tests.support.waiting import until


async def test_requests_do_not_wait_for_a_worker_that_stands_still(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_TIMEOUT_S", 0.25)
    files = {"a.yaml": [*routes(upstream, "busy"), limits("busy", shared(limit(100_000)))]}
    async with Gateway(files) as gateway, AsyncExitStack() as stack:
        assert gateway.plane is not None
        await listen(gateway, "ratelimit")
        folders = [tmp_path / name for name in "ab"]
        for folder in folders:
            folder.mkdir()
        workers = [
            await stack.enter_async_context(running(folder, xds=f"unix:{gateway.home}/xds-ratelimit.sock"))
            for folder in folders
        ]
        at = tuple(f"unix:{folder}/rl.sock" for folder in folders)
        gateway.plane._publish(gateway.plane.engine.serve_at({"dragoman-ratelimit": at}))
        async with await Connection.to(gateway.port(80)) as connection:

            async def decided(count: int) -> int:
                """Sends requests until so many in a row were decided; returns how many were not."""
                missed = in_a_row = 0
                while in_a_row < count:
                    answer = await connection.request("/busy", host="example.com")
                    assert answer.status == 200
                    if answer.header("x-ratelimit-limit") is not None:
                        in_a_row += 1
                    else:
                        missed, in_a_row = missed + 1, 0
                return missed

            await decided(60)
            workers[1].signal(signal.SIGSTOP)
            try:
                # Of requests that two share by turns, so many in a row are never the one's alone.
                assert await decided(60) >= 1
            finally:
                workers[1].signal(signal.SIGCONT)

            async def taken_back() -> bool:
                assert gateway.envoy is not None
                stats = await gateway.envoy.admin("/stats?filter=dragoman-ratelimit.outlier_detection.ejections_active")
                return stats.text.split()[-1] == "0"

            await until(taken_back, what="the worker to be asked again", within_s=20)
            assert await decided(60) == 0
