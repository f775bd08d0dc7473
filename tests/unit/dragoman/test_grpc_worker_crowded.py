# pyright: standard
"""Who gets in, and who has to go, when there are too many connections to the gRPC worker or they hold too much."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import ngh2
import pytest

from dragoman.grpc_worker import Call, GrpcServer, Limits, StatusCode, TlsFiles
from dragoman.open_files import allow_many
from tests.support.certificates import Authority
from tests.support.waiting import until
from tests.unit.dragoman.raw_grpc import PREFACE, RawClient, assert_serves, echo, frame, message

Serve = Callable[..., Awaitable[GrpcServer]]

SETTINGS, RST_STREAM = 4, 3


async def many(server: GrpcServer, count: int, *, said: bytes) -> list[RawClient]:
    """Opens connections that say no more than this."""
    allow_many()
    clients: list[RawClient] = []
    while len(clients) < count:
        some = min(100, count - len(clients))
        clients += await asyncio.gather(*(RawClient.to(server.address, start=False) for _ in range(some)))
        for client in clients[-some:]:
            await client.send(said)
    return clients


async def is_over(client: RawClient) -> bool:
    """Whether the worker has closed it; reads what it says until then."""
    try:
        async with asyncio.timeout(0.05):
            await client.until(lambda: False)
    except (ConnectionError, TimeoutError) as fault:
        return isinstance(fault, ConnectionError)
    return False


@pytest.mark.parametrize("said", [b"", PREFACE + frame(SETTINGS, 0, 0, b"")], ids=["silent", "idle"])
async def test_more_idle_connections_than_there_may_be_keep_no_new_client_out(serving: Serve, said: bytes) -> None:
    server = await serving(echo)
    crowd = await many(server, Limits().max_connections + 50, said=said)
    for _ in range(3):
        await assert_serves(server)
    for client in crowd:
        client.close()


async def test_connections_with_open_streams_are_never_the_ones_to_go(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(
        lambda body, call: kept.append(call) if body else call.done(b""), limits=Limits(max_connections=4)
    )
    busy = [await RawClient.to(server.address) for _ in range(4)]
    asked = [client.ask(message(b"wait")) for client in busy]
    for client in busy:
        await client.flush()
    await until(lambda: len(kept) == 4, what="the calls")
    refused = await RawClient.to(server.address, start=False)
    await refused.ended()
    for call in kept:
        call.done(b"whole")
    for client, stream in zip(busy, asked, strict=True):
        assert (await client.answer(stream)).body == message(b"whole")


async def test_the_oldest_that_never_had_a_request_goes_first_and_is_told(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_connections=3))
    caller, first, second = [await RawClient.to(server.address) for _ in range(3)]
    await caller.answer(caller.ask(message(b"")))
    third = await RawClient.to(server.address)
    with pytest.raises(ConnectionError):
        await first.until(lambda: False)
    assert first.saw(ngh2.GoAwayReceived)
    fourth = await RawClient.to(server.address)
    with pytest.raises(ConnectionError):
        await second.until(lambda: False)
    for client in (caller, third, fourth):
        assert (await client.answer(client.ask(message(b"here")))).body == message(b"here")


async def test_of_those_that_had_requests_the_one_goes_that_had_none_for_longest(serving: Serve) -> None:
    limits = Limits(max_connections=2, keepalive_timeout_s=0.08)  # It looks every 20 ms.
    server = await serving(echo, limits=limits)
    first, second = await RawClient.to(server.address), await RawClient.to(server.address)
    for client in (second, first):
        await client.answer(client.ask(message(b"")))
        assert not await is_over(client)
    third = await RawClient.to(server.address)
    with pytest.raises(ConnectionError):
        await second.until(lambda: False)
    for client in (first, third):
        assert (await client.answer(client.ask(message(b"here")))).body == message(b"here")


async def test_the_freed_place_of_one_that_left_is_used_before_anybody_has_to_go(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_connections=2))
    first, second = await RawClient.to(server.address), await RawClient.to(server.address)
    first.close()
    await until(lambda: len(server._connections) == 1, what="it to be gone")  # pyright: ignore
    await assert_serves(server)
    assert not await is_over(second)


async def test_a_tls_handshake_that_is_never_finished_is_cut(
    serving: Serve, authority: Authority, tmp_path: Path
) -> None:
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path))
    server = await serving(echo, tls=files, limits=Limits(handshake_s=0.2))
    for said in (b"", b"\x16\x03\x01"):
        client = await RawClient.to(server.address, start=False)
        await client.send(said)
        await client.ended()


async def test_more_tls_connections_than_there_may_be_keep_no_new_client_out(
    serving: Serve, authority: Authority, tmp_path: Path
) -> None:
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path))
    server = await serving(echo, tls=files, limits=Limits(max_connections=3))
    context = authority.client_context()
    context.set_alpn_protocols(["h2"])

    async def client() -> RawClient:
        where = server.address
        return RawClient(
            *await asyncio.open_connection(where.host, where.port, ssl=context, server_hostname="127.0.0.1")
        )

    crowd = [await client() for _ in range(10)]
    for _ in range(3):
        one = await client()
        one.session.initiate_connection({})
        assert (await one.answer(one.ask(message(b"in")))).body == message(b"in")
        crowd.append(one)
    for each in crowd:
        each.close()


async def test_a_peer_that_takes_no_replies_is_cut_in_the_end(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(unread_s=0.2))
    # It reads its socket, but lets no stream say anything.
    client = await RawClient.to(server.address, window_bytes=0)
    for _ in range(10):
        client.ask(message(b"never read"))
    with pytest.raises(ConnectionError):
        await client.answer(1)
    await assert_serves(server)


async def test_who_leaves_most_replies_of_all_unread_is_cut(serving: Serve) -> None:
    limits = Limits(max_concurrent_streams=100, max_unread_bytes=1_000_000, keepalive_timeout_s=0.1)
    server = await serving(lambda _body, call: call.done(bytes(10_000)), limits=limits)
    modest, greedy = [await RawClient.to(server.address, window_bytes=0) for _ in range(2)]
    stream = modest.ask(message(b""))
    await modest.flush()
    for _ in range(100):
        greedy.ask(message(b""))
    await greedy.flush()
    await greedy.ended()
    modest.session.set_local_window_size(100_000, stream_id=stream)
    assert len((await modest.answer(stream)).body) == 10_005


async def test_who_has_most_of_all_incomplete_messages_held_loses_them(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_total_buffered_bytes=200_000))
    modest, greedy = await RawClient.to(server.address), await RawClient.to(server.address)
    part = message(bytes(60_000))
    waiting = modest.ask(part[:50_000], end=False)
    await modest.flush()
    held = [greedy.ask(part[:50_000], end=False) for _ in range(4)]
    for stream in held:
        assert (await greedy.answer(stream)).status == StatusCode.RESOURCE_EXHAUSTED
    modest.session.send_data(waiting, part[50_000:], end_stream=True)
    assert (await modest.answer(waiting)).body == part
    assert (await greedy.answer(greedy.ask(part))).body == part


async def test_who_has_most_of_all_incomplete_requests_loses_them(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_incomplete=10, keepalive_timeout_s=0.1))
    modest, greedy = await RawClient.to(server.address), await RawClient.to(server.address)
    waiting = modest.ask(None, end=False)
    await modest.flush()
    held = [greedy.ask(None, end=False) for _ in range(20)]
    for stream in held:
        assert (await greedy.answer(stream)).status == StatusCode.RESOURCE_EXHAUSTED
    modest.session.send_data(waiting, message(b"here"), end_stream=True)
    assert (await modest.answer(waiting)).body == message(b"here")
