# pyright: standard, reportAttributeAccessIssue=false
"""The services' xDS client by delta and by state of the world, with our server and one that believes what it sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.identity import AUTHZ_OWNER
from controlplane.xds.order import Timing
from controlplane.xds.resources import AUTHZ_POLICY, Snapshot
from controlplane.xds.server import AdsServer
from dragoman.xds_client import Backoff, XdsClient
from dragoman.xds_protocol import XdsProtocol
from tests.support.waiting import until
from tests.unit.xds.made import plain, snapshot

StartAds = Callable[..., Awaitable[AdsServer]]
FAST = Backoff(first_s=0.01, longest_s=0.05)
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class Held:
    """What a service holds: name → text. A text with `bad` is refused."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.calls = 0

    def update(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        self.calls += 1
        if any(b"bad" in body for body in changed.values()):
            raise ValueError("this one is no good")
        self.texts |= {name: body.decode().partition("=")[2] for name, body in changed.items()}
        for name in removed:
            del self.texts[name]


@contextlib.asynccontextmanager
async def running(
    address: str, held: Held, protocol: XdsProtocol, last_good: Path | None = None
) -> AsyncIterator[XdsClient]:
    client = XdsClient(
        address,
        "worker-0",
        AUTHZ_OWNER,
        AUTHZ_POLICY,
        held.update,
        last_good=last_good,
        backoff=FAST,
        protocol=protocol,
        name_of=lambda body: body.decode().partition("=")[0],
    )
    await client.load()
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def policies(**texts: str) -> Mapping[str, Snapshot]:
    return {AUTHZ_OWNER: snapshot(*(plain(AUTHZ_POLICY, name, text) for name, text in texts.items()))}


@pytest.mark.parametrize("protocol", ["delta", "sotw", "auto"])
async def test_what_changes_comes_by_each_protocol(
    start_ads: StartAds, engine: str, protocol: XdsProtocol, tmp_path: Path
) -> None:
    cache = SnapshotCache(timing=Timing(linger_s=0.0))
    (address,) = (await start_ads(cache)).addresses
    held = Held()
    cache.publish(policies(a="1", b="1"))
    async with running(address, held, protocol, tmp_path / "kept") as client:
        await until(lambda: held.texts == {"a": "1", "b": "1"}, what="the first policies")
        calls = held.calls
        cache.publish(policies(a="1", c="2"))
        await until(lambda: held.texts == {"a": "1", "c": "2"}, what="what is new and gone")
        assert held.calls <= calls + 2
        assert client.status.rejected is None
    again = Held()
    async with running("unix:/nowhere", again, protocol, tmp_path / "kept"):
        assert again.texts == {"a": "1", "c": "2"}


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
async def test_our_server_finds_the_one_that_is_rejected_by_each_protocol(
    start_ads: StartAds, engine: str, protocol: XdsProtocol
) -> None:
    nacks: list[Nack] = []
    cache = SnapshotCache(observers=Observers(on_nack=nacks.append))
    (address,) = (await start_ads(cache)).addresses
    held = Held()
    cache.publish(policies(a="1", b="bad", c="1", d="1"))
    async with running(address, held, protocol):
        await until(lambda: nacks, what="the rejection")
        assert nacks[-1].names == ("b",)
        await until(lambda: held.texts == {"a": "1", "c": "1", "d": "1"}, what="the others")
        cache.publish(policies(a="1", b="2", c="1", d="1"))
        await until(lambda: held.texts.get("b") == "2", what="the repair")


class Believer:
    """Delta as go-control-plane serves it: what was sent is taken to be there, whatever the client said of it."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.rejections: list[str] = []
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        methods = {"DeltaAggregatedResources": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)

    def publish(self, **texts: str) -> None:
        self.texts = texts
        self._changed.set()

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        sent: dict[str, str] = {}
        async for request in requests:
            if request.HasField("error_detail"):
                self.rejections.append(request.error_detail.message)
            while self.texts == sent:
                self._changed.clear()
                await self._changed.wait()
            response = discovery_pb2.DeltaDiscoveryResponse(type_url=AUTHZ_POLICY, nonce="n")
            for name, text in self.texts.items():
                if sent.get(name) != text:
                    entry = response.resources.add(name=name, version=text)
                    entry.resource.type_url = AUTHZ_POLICY
                    entry.resource.value = f"{name}={text}".encode()
            response.removed_resources.extend(sent.keys() - self.texts.keys())
            sent = self.texts
            yield response


async def test_what_came_with_a_bad_one_is_there_though_it_is_never_sent_again() -> None:
    server, held = Believer(), Held()
    server.publish(a="1", gone="1")
    async with server.serving() as address, running(address, held, "auto") as client:
        await until(lambda: held.texts == {"a": "1", "gone": "1"}, what="the first policies")
        server.publish(a="bad", b="1", c="1", d="1")
        await until(lambda: server.rejections, what="the rejection")
        assert held.texts == {"a": "1", "b": "1", "c": "1", "d": "1"}
        assert "this one is no good" in (client.status.rejected or "")
        server.publish(a="2", b="1", c="1", d="1")
        await until(lambda: held.texts == {"a": "2", "b": "1", "c": "1", "d": "1"}, what="the repair")
        assert client.status.rejected is None
        assert len(server.rejections) == 1


async def test_state_of_the_world_asks_for_names() -> None:
    with pytest.raises(ValueError, match="how resources are called"):
        XdsClient("unix:/nowhere", "w", AUTHZ_OWNER, AUTHZ_POLICY, Held().update, protocol="sotw")
