"""The services' own xDS client, against the real server."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.identity import AUTHZ_OWNER, Principal
from controlplane.xds.order import Timing
from controlplane.xds.resources import AUTHZ_POLICY, Snapshot
from controlplane.xds.server import AdsServer, serve_ads
from dragoman.xds_client import Backoff, OnUpdate, XdsClient
from tests.support.waiting import until
from tests.unit.xds.made import plain, snapshot

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
FAST = Backoff(first_s=0.01, longest_s=0.05)
NO_LINGER = Timing(linger_s=0.0)


class Policies:
    """What a service would hold; `refuse` is a text that it accepts in no policy."""

    def __init__(self, refuse: bytes = b"\0") -> None:
        self.held: dict[str, bytes] = {}
        self.calls = 0
        self._refuse = refuse

    def update(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        self.calls += 1
        for body in changed.values():
            if self._refuse in body:
                raise ValueError("this policy is no good")
        self.held.update(changed)
        for name in removed:
            del self.held[name]


@contextlib.asynccontextmanager
async def running(address: str, on_update: OnUpdate, last_good: Path | None = None) -> AsyncIterator[XdsClient]:
    client = XdsClient(address, "worker-0", AUTHZ_OWNER, AUTHZ_POLICY, on_update, last_good=last_good, backoff=FAST)
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


async def test_a_service_is_told_what_is_new_what_changed_and_what_is_gone(start_ads: StartAds) -> None:
    cache = SnapshotCache(timing=NO_LINGER)
    (address,) = (await start_ads(cache)).addresses
    service = Policies()
    cache.publish(policies(a="1", b="1"))
    async with running(address, service.update):
        await until(lambda: service.held == {"a": b"a=1", "b": b"b=1"}, what="the first policies")
        cache.publish(policies(a="2"))
        await until(lambda: service.held == {"a": b"a=2"}, what="the change and the removal")
        assert await cache.wait_settled(AUTHZ_OWNER, timeout_s=5)


async def test_an_update_is_acknowledged_only_after_it_is_in_force(start_ads: StartAds) -> None:
    seen: list[int] = []
    service = Policies()
    cache = SnapshotCache(observers=Observers(on_ack=lambda ack: seen.append(len(service.held))))
    (address,) = (await start_ads(cache)).addresses
    cache.publish(policies(a="1"))
    async with running(address, service.update):
        await until(lambda: seen, what="an acknowledgement")
    assert seen == [1]


async def test_a_refused_policy_is_reported_alone_and_the_others_are_in_force(start_ads: StartAds) -> None:
    nacks: list[Nack] = []
    cache = SnapshotCache(observers=Observers(on_nack=nacks.append))
    (address,) = (await start_ads(cache)).addresses
    service = Policies(refuse=b"bad")
    cache.publish(policies(a="1", b="bad", c="1", d="1"))
    async with running(address, service.update) as client:
        await until(lambda: service.held.keys() == {"a", "c", "d"}, what="the good policies")
        await until(lambda: nacks, what="the rejection")
        assert [nack.names for nack in nacks] == [("b",)]
        assert "this policy is no good" in nacks[0].message
        calls = service.calls
        cache.publish(policies(a="2", b="bad", c="1", d="1"))
        await until(lambda: service.held["a"] == b"a=2", what="a later change")
        assert service.calls == calls + 1, "the rejected version was sent again"
        assert client.status.ready


class Slow(Policies):
    """Takes an update in only when `gate` is open."""

    def __init__(self, refuse: bytes = b"\0") -> None:
        super().__init__(refuse)
        self.gate = asyncio.Event()
        self.under_way = self.most = 0

    async def taken(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            self.update(changed, removed)
        finally:
            self.under_way -= 1


async def test_updates_that_take_their_time_are_taken_one_by_one_and_the_last_one_stays(start_ads: StartAds) -> None:
    acknowledged: list[Mapping[str, bytes]] = []
    nacks: list[Nack] = []
    service = Slow(refuse=b"bad")
    observers = Observers(on_ack=lambda ack: acknowledged.append(dict(service.held)), on_nack=nacks.append)
    cache = SnapshotCache(timing=NO_LINGER, observers=observers)
    (address,) = (await start_ads(cache)).addresses
    cache.publish(policies(a="1"))
    async with running(address, service.taken) as client:
        await until(lambda: service.under_way, what="the first update")
        cache.publish(policies(a="bad"))
        cache.publish(policies(a="3"))
        assert not acknowledged
        assert not client.status.ready
        service.gate.set()
        await until(lambda: service.held == {"a": b"a=3"}, what="the last update")
        assert await cache.wait_settled(AUTHZ_OWNER, timeout_s=5)
        service.gate.clear()
        cache.publish(policies(a="bad", b="1"))
        await until(lambda: service.under_way, what="one that is no good")
        assert not nacks
        service.gate.set()
        await until(lambda: nacks, what="the rejection")
        assert [nack.names for nack in nacks] == [("a",)]
        assert service.held == {"a": b"a=3", "b": b"b=1"}
        cache.publish(policies(a="4", b="1"))
        await until(lambda: service.held == {"a": b"a=4", "b": b"b=1"}, what="the repair")
    assert service.most == 1
    assert acknowledged[0] == {"a": b"a=1"}


async def test_an_update_under_way_at_the_end_is_neither_in_force_nor_acknowledged_nor_kept(
    start_ads: StartAds, tmp_path: Path
) -> None:
    acknowledged: list[object] = []
    cache = SnapshotCache(observers=Observers(on_ack=acknowledged.append))
    (address,) = (await start_ads(cache)).addresses
    service = Slow()
    cache.publish(policies(a="1"))
    async with running(address, service.taken, tmp_path / "kept"):
        await until(lambda: service.under_way, what="the update")
    assert (service.held, service.under_way) == ({}, 0)
    assert not acknowledged
    assert not (tmp_path / "kept").exists()


async def test_each_response_that_is_accepted_is_told_also_one_without_anything(start_ads: StartAds) -> None:
    cache = SnapshotCache(timing=NO_LINGER)
    (address,) = (await start_ads(cache)).addresses
    service, synced = Policies(refuse=b"bad"), list[int]()
    client = XdsClient(
        address,
        "worker-0",
        AUTHZ_OWNER,
        AUTHZ_POLICY,
        service.update,
        on_sync=lambda: synced.append(len(service.held)),
        backoff=FAST,
    )
    task = asyncio.create_task(client.run())
    try:
        cache.complete()
        await until(lambda: synced == [0], what="the empty response")
        cache.publish(policies(a="bad"))
        await until(lambda: client.status.rejected, what="the rejection")
        assert synced == [0]
        cache.publish(policies(a="1"))
        await until(lambda: synced == [0, 1], what="the first policy")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_after_a_restart_of_the_control_plane_nothing_is_sent_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/xds.sock"
    listen = {address: Principal("service", "authz")}
    service = Policies()
    first, second = SnapshotCache(), SnapshotCache(timing=Timing(linger_s=0.2))
    first.publish(policies(a="1", gone="1"))
    second.publish(policies(a="1", b="1"))
    server = await serve_ads(first, listen=listen)
    async with running(address, service.update) as client:
        await until(lambda: "a" in service.held, what="the first policies")
        calls, synced = service.calls, client.status.last_sync
        await server.stop()
        await until(lambda: not client.status.connected, what="the end of the stream")
        server = await serve_ads(second, listen=listen)
        await until(lambda: service.held == {"a": b"a=1", "b": b"b=1"}, what="what changed meanwhile")
        assert service.calls <= calls + 2
        assert client.status.last_sync != synced
        await server.stop()


async def test_a_service_starts_from_its_last_good_state_with_no_control_plane(tmp_path: Path) -> None:
    kept = tmp_path / "state" / "policies"
    address = f"unix:{tmp_path}/xds.sock"
    cache = SnapshotCache()
    cache.publish(policies(a="1"))
    server = await serve_ads(cache, listen={address: Principal("service", "authz")})
    async with running(address, Policies().update, kept):
        await until(kept.exists, what="the kept state")
    await server.stop()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    service = Policies()
    async with running(address, service.update, kept) as client:
        assert service.held == {"a": b"a=1"}
        assert client.status.ready
        assert not client.status.connected
        assert client.status.loaded_from_file
        await until(lambda: client.status.error, what="a reason why it is not connected")


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b""])
async def test_a_kept_state_that_cannot_be_read_is_left_alone(tmp_path: Path, content: bytes) -> None:
    kept = tmp_path / "policies"
    kept.write_bytes(content)
    service = Policies()
    client = XdsClient("unix:/nowhere", "w", AUTHZ_OWNER, AUTHZ_POLICY, service.update, last_good=kept)
    assert not await client.load()
    assert not client.status.ready
    assert kept.read_bytes() == content


async def test_a_service_without_policies_is_ready_once_it_has_heard_so(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    (address,) = (await start_ads(cache)).addresses
    service = Policies()
    async with running(address, service.update) as client:
        await until(lambda: cache.clients(), what="the client")
        assert not client.status.ready
        cache.complete()
        await until(lambda: client.status.ready, what="the empty answer")
        assert service.calls == 0


def test_the_client_runs_on_uvloop_too() -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.publish(policies(a="1"))
        server = await serve_ads(cache, listen={"127.0.0.1:0": Principal("any")})
        service = Policies()
        async with running(server.addresses[0], service.update):
            await until(lambda: service.held, what="policies")
        await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
