"""Who is let in, where the server listens, and what bounds a client."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from prometheus_client import CollectorRegistry

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import StreamEvent
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.resources import CLUSTER, ENDPOINT, Resource
from controlplane.xds.server import AdsServer, Limits, ListenError, serve_ads
from controlplane.xds.wire import delta_tail, sotw_tail
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.unit.xds.made import plain, snapshot
from tests.unit.xds.wire_clients import DeltaClient, RawClient

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"


async def test_each_socket_serves_only_its_gateway(start_ads: StartAds, tmp_path: Path) -> None:
    one, two = f"unix:{tmp_path}/one", f"unix:{tmp_path}/two"
    cache = SnapshotCache()
    await start_ads(cache, listen={one: Principal("gateway", OWNER), two: Principal("gateway", "demo/other")})
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"))})
    async with DeltaClient(one, OWNER) as client:
        assert len((await client.fetch(CLUSTER)).resources) == 1
    async with DeltaClient(two, OWNER) as client:
        await client.subscribe(CLUSTER)
        assert (await client.ended())[0] == grpc.StatusCode.PERMISSION_DENIED


async def test_a_file_that_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="not a socket"):
        await serve_ads(SnapshotCache(), listen={f"unix:{path}": Principal("any")})
    assert path.read_text() == "data"


async def test_plaintext_off_loopback_is_refused_unless_asked_for(start_ads: StartAds) -> None:
    address = f"0.0.0.0:{free_port()}"
    with pytest.raises(ListenError, match="loopback"):
        await serve_ads(SnapshotCache(), listen={address: Principal("any")})
    await start_ads(SnapshotCache(), listen={address: Principal("any")}, insecure_off_loopback=True)


async def test_a_busy_port_is_a_clear_error(start_ads: StartAds) -> None:
    (address,) = (await start_ads(SnapshotCache())).addresses
    with pytest.raises(ListenError, match=address):
        await serve_ads(SnapshotCache(), listen={address: Principal("any")})


async def test_a_client_too_many_is_turned_away_and_let_in_when_one_has_gone(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    cache.complete()
    (address,) = (await start_ads(cache, limits=Limits(max_clients=1))).addresses
    async with DeltaClient(address, OWNER) as first:
        await first.fetch(CLUSTER)
        async with DeltaClient(address, OWNER) as second:
            # It may be turned away before it has asked.
            with contextlib.suppress(grpc.aio.AioRpcError):
                await second.subscribe(CLUSTER)
            assert (await second.ended())[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    await until(lambda: not cache.clients(), what="the first to be gone")
    async with DeltaClient(address, OWNER) as third:
        await third.fetch(CLUSTER)


async def test_a_client_that_asks_for_too_many_names_is_cut_off(start_ads: StartAds) -> None:
    cache = SnapshotCache(max_names_per_client=10)
    (address,) = (await start_ads(cache)).addresses
    async with DeltaClient(address, OWNER) as client:
        await client.subscribe(ENDPOINT, [f"e{number}" for number in range(11)])
        assert (await client.ended())[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_that_asks_for_too_many_types_is_cut_off(start_ads: StartAds) -> None:
    (address,) = (await start_ads(SnapshotCache())).addresses
    async with DeltaClient(address, OWNER) as client:
        for number in range(17):
            await client.subscribe(f"type.googleapis.com/t{number}")
        assert (await client.ended())[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


class Garbage(RawClient):
    async def send(self, payload: bytes) -> None:
        await self._call.write(payload)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (b"", grpc.StatusCode.PERMISSION_DENIED),
    ],
    ids=["garbage", "no node"],
)
async def test_what_is_not_a_request_ends_the_stream(
    start_ads: StartAds, payload: bytes, code: grpc.StatusCode
) -> None:
    (address,) = (await start_ads(SnapshotCache())).addresses
    async with Garbage(address, OWNER) as client:
        await client.send(payload)
        assert (await client.ended())[0] == code


async def test_a_client_that_says_nothing_is_not_waited_for(start_ads: StartAds) -> None:
    (address,) = (await start_ads(SnapshotCache(), limits=Limits(first_request_timeout_s=0.05))).addresses
    async with DeltaClient(address, OWNER) as client:
        assert (await client.ended())[0] == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_server_that_stops_ends_the_streams_so_that_clients_go_elsewhere() -> None:
    cache = SnapshotCache()
    cache.complete()
    server = await serve_ads(cache, listen={"127.0.0.1:0": Principal("any")})
    async with DeltaClient(server.addresses[0], OWNER) as client:
        await client.fetch(CLUSTER)
        await server.stop(grace_s=1.0)
        assert (await client.ended())[0] == grpc.StatusCode.UNAVAILABLE
    assert cache.clients() == ()


async def test_streams_pushes_and_answers_are_counted_and_told(start_ads: StartAds) -> None:
    registry = CollectorRegistry()
    streams: list[StreamEvent] = []
    cache = SnapshotCache(metrics=XdsMetrics(registry), observers=Observers(on_stream=streams.append))
    (address,) = (await start_ads(cache)).addresses

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"))})
    async with DeltaClient(address, OWNER) as client:
        await client.fetch(CLUSTER)
        await client.subscribe(ENDPOINT, ["a"])
        await client.nack(await client.receive())
        await until(lambda: value("dragoman_xds_nacks_total", type="ClusterLoadAssignment") == 1, what="the NACK")
        assert value("dragoman_xds_streams", protocol="delta") == 1
        assert value("dragoman_xds_pushes_total", type="Cluster") == 1
        assert value("dragoman_xds_push_bytes_total", type="Cluster") > 0
        assert value("dragoman_xds_acks_total", type="Cluster") == 1
        assert value("dragoman_xds_push_to_ack_seconds_count", type="Cluster") == 1
        (summary,) = cache.clients()
        assert (summary.owner, summary.node_id, summary.settled) == (OWNER, "node", True)
        assert summary.types[CLUSTER].known == 1
    await until(lambda: len(streams) == 2, what="the end of the stream")
    assert [event.open for event in streams] == [True, False]
    assert value("dragoman_xds_streams", protocol="delta") == 0


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_383, 16_384, 3_000_000])
def test_what_is_framed_by_hand_is_what_protobuf_reads(size: int) -> None:
    made = [Resource.of(CLUSTER, f"näme-{number}", b"x" * size) for number in range(3)]
    raw = b"".join([p for r in made for p in (r.delta_head, r.body)]) + delta_tail(CLUSTER, "n1", ["gone", "also"])
    delta: Any = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)  # pyright: ignore
    assert [(e.name, e.version, e.resource.type_url, e.resource.value) for e in delta.resources] == [
        (r.name, r.version, r.type_url, r.body) for r in made
    ]
    assert (delta.type_url, delta.nonce, list(delta.removed_resources)) == (CLUSTER, "n1", ["gone", "also"])
    raw = b"".join([p for r in made for p in (r.sotw_head, r.body)]) + sotw_tail(CLUSTER, "n2", "v")
    sotw: Any = discovery_pb2.DiscoveryResponse.FromString(raw)  # pyright: ignore
    assert [(e.type_url, e.value) for e in sotw.resources] == [(CLUSTER, r.body) for r in made]
    assert (sotw.type_url, sotw.nonce, sotw.version_info) == (CLUSTER, "n2", "v")
