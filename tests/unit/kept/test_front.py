"""A control plane that starts again: clients are served what was kept while it reads, and then only what differs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.load import key_of
from controlplane.kept.front import Front, open_front
from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.changes import Changes, Origin, RawObject, SourceFault
from controlplane.xds.identity import Principal
from controlplane.xds.resources import CLUSTER, LISTENER, ROUTE
from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS
from tests.support.waiting import until
from tests.unit.xds.wire_clients import DeltaClient, names_of

OWNER = "demo/edge"


class Source:
    """Objects of a test; `read` waits for as long as it is `held`."""

    def __init__(self, *documents: Any) -> None:
        self.documents = documents
        self.fault: str | None = None
        self.reading = threading.Event()
        self.released = threading.Event()
        self.released.set()
        self.more: asyncio.Queue[Changes] = asyncio.Queue()

    def held(self) -> Source:
        self.released.clear()
        return self

    def changes(self) -> Changes:
        return changes(self.documents)

    def read(self) -> Changes:
        self.reading.set()
        assert self.released.wait(20)
        if self.fault is not None:
            return Changes(faults=(SourceFault("folder", 0, self.fault),), complete=False)
        return self.changes()

    async def watch(self, stop: asyncio.Event) -> AsyncIterator[Changes]:
        while True:
            yield await self.more.get()


def changes(documents: Iterable[Any]) -> Changes:
    keyed = ((key_of(each), each) for each in documents)
    return Changes(tuple(RawObject(key, each, Origin("f")) for key, each in keyed if key is not None))


def demo(*paths: str, gateway: bool = True) -> list[Any]:
    routes = [m.route(f"r{path.strip('/')}", [m.to_backend(path, "echo")]) for path in paths]
    return [GATEWAY_CLASS, *([m.gateway()] if gateway else []), m.backend("echo", 9000), *routes]


class Life:
    """One life of a control plane, on the same state folder as the ones before."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder = folder
        self.source = source
        self.plane: ControlPlane | None = None
        self._stack = AsyncExitStack()
        self.front: Front | None = None

    async def __aenter__(self) -> Life:
        self.front = open_front(state=self.folder, source="test")
        await self.front.serve(self._stack, listen={"127.0.0.1:0": Principal("any")})
        self.plane = ControlPlane(self.source, bind=bind, listen={}, front=self.front)
        self.starting = asyncio.ensure_future(self._stack.enter_async_context(self.plane))
        return self

    async def __aexit__(self, *fault: object) -> None:
        self.source.released.set()
        await self.starting
        await self._stack.aclose()

    async def client(self) -> DeltaClient:
        assert self.front is not None
        assert self.front.ads is not None
        return await self._stack.enter_async_context(DeltaClient(self.front.ads.addresses[0], OWNER))


@pytest.fixture
async def kept(tmp_path: Path) -> Path:
    """A state folder with what a Gateway with the route /one was served."""
    async with Life(tmp_path, Source(*demo("/one"))) as life:
        await life.starting
    return tmp_path


async def test_a_client_is_served_what_was_kept_while_the_source_is_being_read(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one", "/two")).held()) as life:
        client = await life.client()
        assert "demo/Backend/echo/0/default" in names_of(await client.fetch(CLUSTER))
        assert names_of(await client.fetch(LISTENER)) == ["demo/edge/80"]
        assert life.plane is not None
        assert life.plane.busy
        assert not life.plane.ready
        life.source.released.set()
        await life.starting
        assert life.plane.ready


async def test_when_the_source_is_read_only_what_differs_is_sent(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one", "/two")).held()) as life:
        client = await life.client()
        await client.fetch(CLUSTER)
        await client.fetch(LISTENER)
        assert names_of(await client.fetch(ROUTE, ["demo/edge/80"])) == ["demo/edge/80"]
        life.source.released.set()
        response = await client.take()
        assert (response.type_url, names_of(response)) == (ROUTE, ["demo/edge/80"])
        with pytest.raises(TimeoutError):
            await client.receive(0.3)


async def test_a_source_that_has_not_changed_sends_nothing(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one")).held()) as life:
        client = await life.client()
        await client.fetch(CLUSTER)
        await client.fetch(LISTENER)
        life.source.released.set()
        await life.starting
        with pytest.raises(TimeoutError):
            await client.receive(0.3)


async def test_what_was_kept_is_served_as_long_as_the_source_cannot_be_read(kept: Path) -> None:
    source = Source(*demo("/one", "/two"))
    source.fault = "cannot be listed"
    async with Life(kept, source) as life:
        await life.starting
        assert life.plane is not None
        assert life.front is not None
        assert not life.plane.ready
        assert life.plane.awaits == "folder: cannot be listed"
        assert life.front.words.startswith("serving the snapshot that was kept at 20")
        client = await life.client()
        await client.fetch(CLUSTER)
        assert names_of(await client.fetch(ROUTE, ["demo/edge/80"])) == ["demo/edge/80"]
        await source.more.put(source.changes())
        response = await client.take()
        assert (response.type_url, names_of(response)) == (ROUTE, ["demo/edge/80"])
        assert life.plane.ready


async def test_a_gateway_that_is_gone_goes_when_the_source_has_been_read(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one", gateway=False)).held()) as life:
        client = await life.client()
        assert names_of(await client.fetch(LISTENER)) == ["demo/edge/80"]
        life.source.released.set()
        response = await client.take()
        assert (response.type_url, list(response.removed_resources)) == (LISTENER, ["demo/edge/80"])
    async with Life(kept, Source(*demo("/one"))) as life:
        assert life.front is not None
        assert OWNER not in life.front.kept.snapshots


async def test_who_has_something_newer_than_what_was_kept_keeps_it(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one")).held()) as life:
        client = await life.client()
        await client.subscribe(ROUTE, ["demo/edge/80"], versions={"demo/edge/80": "newer"})
        # Asked later, answered first: nothing was sent of the routes.
        assert names_of(await client.fetch(LISTENER)) == ["demo/edge/80"]
        life.source.released.set()
        response = await client.take()
        assert (response.type_url, names_of(response)) == (ROUTE, ["demo/edge/80"])


async def test_what_comes_while_the_source_is_read_waits_for_its_turn(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one")).held()) as life:
        plane = life.plane
        assert plane is not None
        await until(life.source.reading.is_set, within_s=5, what="the source to be read")
        done: list[str] = []
        plane.when_free(lambda: done.append("first"))
        plane.serve_at({"dragoman-authz": ("127.0.0.1:9191",)})
        plane.when_free(lambda: done.append("second"))
        plane.reconsider()
        assert done == []
        life.source.released.set()
        await life.starting
        await until(lambda: done == ["first", "second"], within_s=5, what="what waited to be done")
        assert plane.engine.pipeline.guards.endpoints.peek("dragoman-authz") == ("127.0.0.1:9191",)


async def test_the_event_loop_goes_on_while_the_source_is_read(kept: Path) -> None:
    async with Life(kept, Source(*demo("/one")).held()) as life:
        for _ in range(3):
            client = await life.client()
            assert names_of(await client.fetch(LISTENER)) == ["demo/edge/80"]
        assert not life.starting.done()


async def test_a_source_that_cannot_be_taken_in_ends_the_start(kept: Path) -> None:
    source = Source()
    source.documents = (object(),)
    with pytest.raises((TypeError, AttributeError)):
        async with Life(kept, source):
            pass
