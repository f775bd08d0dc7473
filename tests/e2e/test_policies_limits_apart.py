"""The rate limit service hears nothing from the control plane any more, while Envoys go on to follow it."""

from __future__ import annotations

import asyncio
import contextlib

from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.policy_limits import limit, shared, statuses
from tests.e2e.policy_manifests import Manifest, limits, routes
from tests.e2e.policy_services import announce, known, listen
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.waiting import until


class Wire:
    """A socket that leads to another one until it is cut."""

    def __init__(self, path: str, target: str) -> None:
        self._path, self._target = path, target
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *fault: object) -> None:
        await self.cut()

    async def cut(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, before = await asyncio.open_unix_connection(self._target)
        with contextlib.ExitStack() as stack:
            stack.callback(writer.close)
            stack.callback(before.close)
            back = asyncio.create_task(_copy(behind, writer))
            self._tasks |= {back, asyncio.current_task()}  # type: ignore[arg-type]
            await _copy(reader, before)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def test_edited_limits_hold_as_they_were_until_the_service_hears_of_the_edit(upstream: Upstream) -> None:
    names = ("open", "closed")

    def of(requests: int, *more: Manifest) -> list[Manifest]:
        return [
            limits("open", shared(limit(requests, shared=True), *more)),
            limits("closed", shared(limit(requests, shared=True), *more, failureMode="Closed")),
        ]

    files = {"a.yaml": routes(upstream, *names, "new-open", "new-closed", "free"), "b.yaml": of(2)}
    async with Gateway(files) as gateway:
        assert gateway.plane is not None
        await listen(gateway, "ratelimit")
        settings = RateLimitSettings(
            listen=f"unix:{gateway.home}/ratelimit.sock", xds=f"unix:{gateway.home}/wire.sock", drain_s=0.1
        )
        async with (
            Wire(f"{gateway.home}/wire.sock", f"{gateway.home}/xds-ratelimit.sock") as wire,
            worker(settings) as serving,
        ):
            await until(lambda: serving.service.ready, what="the limits to be in force")
            announce(gateway, "ratelimit")
            await known(gateway, "ratelimit")
            for name in names:
                await gateway.answers(f"/{name}", 429)
            await wire.cut()
            each_user = limit(1, "Day", {"headers": [{"name": "x-user", "type": "Distinct"}]})
            new = [limits("new-open", shared(limit(0))), limits("new-closed", shared(limit(0), failureMode="Closed"))]
            gateway.write("b.yaml", [*of(1_000_000, each_user), *new])
            # Of these nothing is known, so it is as if nobody could be asked.
            await gateway.answers("/new-closed", 503)
            for name in names:
                assert await statuses(gateway, f"/{name}", 2) == [429] * 2
                assert await statuses(gateway, f"/{name}", 1, x_user="ada") == [429]
            assert await statuses(gateway, "/new-open", 2) == [200] * 2
