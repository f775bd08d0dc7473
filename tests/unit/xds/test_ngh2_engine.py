"""What the ngh2 engine has to see to by itself: frames, methods, records of TLS, and peers that fall silent."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ngh2
import pytest

from controlplane.xds.cache import SnapshotCache
from controlplane.xds.credentials import KeyPair, ServerTls
from controlplane.xds.identity import Principal
from controlplane.xds.ngh2_tls import Tls
from controlplane.xds.resources import CLUSTER, Resource
from controlplane.xds.server import DELTA_METHOD, AdsServer, Limits, serve_ads
from controlplane.xds.streams import Context, End
from dragoman.grpc_worker.api import StatusCode
from tests.support.certificates import Authority
from tests.support.waiting import until
from tests.unit.xds.h2_client import H2Client
from tests.unit.xds.made import plain, snapshot

StartAds = Callable[..., Awaitable[AdsServer]]
OWNER = "demo/edge"
ECHO = "/test.Echo/Echo"


class Raw(asyncio.Protocol):
    """A connection on which a test sends whatever it likes; `events` are those of HTTP/2 that came."""

    def __init__(self) -> None:
        self.session = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
        self.events: list[ngh2.Event] = []
        self.closed = False
        self.answers = True

    @classmethod
    async def to(cls, address: str) -> Raw:
        host, _, port = address.rpartition(":")
        _, made = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        made.session.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        made.flush()
        return made

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.answers:
            self.session.receive_data(data)
            self.events += self.session.events()
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def ask(self, path: str, *, method: str = "POST", content_type: str = "application/grpc") -> int:
        stream = self.session.send_request(
            [
                (b":method", method.encode()),
                (b":path", path.encode()),
                (b":authority", b"xds"),
                (b":scheme", b"http"),
                (b"content-type", content_type.encode()),
            ]
        )
        self.flush()
        return stream

    def send(self, stream: int, data: bytes) -> None:
        self.session.send_data(stream, data)
        self.flush()

    def flush(self) -> None:
        if out := self.session.data_to_send():
            self.transport.write(out)

    async def headers(self, stream: int) -> dict[bytes, bytes]:
        """Waits for headers or trailers that hold a gRPC status."""

        def found() -> dict[bytes, bytes]:
            kinds = (ngh2.ResponseReceived, ngh2.TrailersReceived)
            all_of_it = [
                dict(each.headers) for each in self.events if isinstance(each, kinds) and each.stream_id == stream
            ]
            return next((each for each in all_of_it if b"grpc-status" in each), {})

        return await until(found, what="a status")

    def data(self, stream: int) -> bytes:
        found = (each for each in self.events if isinstance(each, ngh2.DataReceived))
        return b"".join(each.data for each in found if each.stream_id == stream)


def framed(body: bytes, *, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(body)) + body


@pytest.fixture
async def address(start_ads: StartAds) -> str:
    return (await start_ads(SnapshotCache(), engine="ngh2", limits=Limits(max_request_bytes=1_000))).addresses[0]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"path": "/nobody/serves"}, b"200", StatusCode.UNIMPLEMENTED),
        ({"path": DELTA_METHOD, "method": "GET"}, b"405", StatusCode.INTERNAL),
        ({"path": DELTA_METHOD, "content_type": "text/html"}, b"415", StatusCode.INTERNAL),
    ],
    ids=["method", "verb", "content"],
)
async def test_what_is_no_call_of_ours_is_refused_and_the_connection_stays(
    address: str, asked: dict[str, str], status: bytes, code: StatusCode
) -> None:
    raw = await Raw.to(address)
    for _ in range(2):
        headers = await raw.headers(raw.ask(**asked))
        assert (headers[b":status"], int(headers[b"grpc-status"])) == (status, code)
    raw.transport.abort()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (framed(b"x", flags=1), StatusCode.UNIMPLEMENTED),
        (framed(b"x", flags=9), StatusCode.INVALID_ARGUMENT),
        (struct.pack(">BI", 0, 1_001), StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["compressed", "flags", "length"],
)
async def test_a_message_that_is_none_ends_the_stream(address: str, sent: bytes, code: StatusCode) -> None:
    raw = await Raw.to(address)
    stream = raw.ask(DELTA_METHOD)
    raw.send(stream, sent)
    assert int((await raw.headers(stream))[b"grpc-status"]) == code
    raw.transport.abort()


async def test_messages_come_in_any_number_of_frames(start_ads: StartAds) -> None:
    heard: list[bytes] = []

    async def echo(context: Context, principal: Principal) -> End | None:
        while (message := await context.read()) is not None:
            heard.append(message)
            await context.write(message[::-1])
        return None

    server = await start_ads(SnapshotCache(), engine="ngh2", methods={ECHO: echo})
    raw = await Raw.to(server.addresses[0])
    stream = raw.ask(ECHO)
    sent = [b"", b"one", b"two" * 20_000, b"x"]
    whole = b"".join(map(framed, sent))
    for start in range(0, len(whole), 7_777):
        raw.send(stream, whole[start : start + 7_777])
    expected = b"".join(framed(each[::-1]) for each in sent)
    await until(lambda: raw.data(stream) == expected, what="the echo")
    assert heard == sent
    raw.session.end_stream(stream)
    raw.flush()
    assert int((await raw.headers(stream))[b"grpc-status"]) == 0
    raw.transport.abort()


async def test_what_nobody_reads_is_not_taken_from_the_client(start_ads: StartAds) -> None:
    go_on = asyncio.Event()
    heard: list[bytes] = []

    async def later(context: Context, principal: Principal) -> End | None:
        await go_on.wait()
        while (message := await context.read()) is not None:
            heard.append(message)
        return None

    server = await start_ads(SnapshotCache(), engine="ngh2", methods={ECHO: later})
    raw = await Raw.to(server.addresses[0])
    stream = raw.ask(ECHO)
    for _ in range(32):
        raw.send(stream, framed(bytes(1 << 20)))
    await until(lambda: raw.session.queued_body_size(stream) < 31 << 20, what="the first megabytes")
    for _ in range(30):
        await asyncio.sleep(0.01)  # In which more would come, if it were read.
        assert raw.session.queued_body_size(stream) > 20 << 20
    go_on.set()
    await until(lambda: len(heard) == 32, what="all of it")
    raw.transport.abort()


async def test_a_method_that_fails_ends_its_stream_alone(start_ads: StartAds, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(context: Context, principal: Principal) -> End | None:
        raise RuntimeError("a fault")

    server = await start_ads(SnapshotCache(), engine="ngh2", methods={ECHO: fail})
    raw = await Raw.to(server.addresses[0])
    stream = raw.ask(ECHO)
    raw.send(stream, framed(b""))
    assert int((await raw.headers(stream))[b"grpc-status"]) == StatusCode.INTERNAL
    assert "a fault" in caplog.text
    assert not raw.closed
    raw.transport.abort()


async def test_who_leaves_pings_unanswered_is_forgotten(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"))})
    server = await start_ads(cache, engine="ngh2", limits=Limits(keepalive_s=1.0))
    async with H2Client(server.addresses[0], OWNER) as alive, H2Client(server.addresses[0], OWNER) as dead:
        for client in (alive, dead):
            client.send(type_url=CLUSTER)
            await until(lambda: bool(client.responses), what="an answer")  # noqa: B023
        dead.transport.pause_reading()
        await until(lambda: len(cache.clients()) == 1, what="one to be forgotten")
        assert not alive.closed


async def test_a_connection_without_streams_is_closed(start_ads: StartAds) -> None:
    limits = Limits(connection_idle_s=0.1, first_request_timeout_s=0.1)
    server = await start_ads(SnapshotCache(), engine="ngh2", limits=limits)
    idle = await Raw.to(server.addresses[0])
    _, mute = await asyncio.get_running_loop().create_connection(Raw, "127.0.0.1", int(server.addresses[0][10:]))
    await until(lambda: idle.closed and mute.closed, what="both to be closed")


async def test_idle_connections_keep_no_client_out_and_those_with_streams_stay(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"))})
    server = await start_ads(cache, engine="ngh2", limits=Limits(max_connections=5))
    async with H2Client(server.addresses[0], OWNER, node_id="first") as first:
        first.send(type_url=CLUSTER)
        await until(lambda: bool(first.responses), what="an answer")
        crowd = [await Raw.to(server.addresses[0]) for _ in range(10)]
        async with H2Client(server.addresses[0], OWNER, node_id="second") as second:
            second.send(type_url=CLUSTER)
            await until(lambda: bool(second.responses), what="an answer")
            assert not first.closed
        assert crowd[0].closed
        assert any(isinstance(each, ngh2.GoAwayReceived) for each in crowd[0].events)
        for each in crowd:
            each.transport.abort()


async def test_where_all_have_streams_no_more_connections_come_in(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    cache.publish({OWNER: snapshot(plain(CLUSTER, "a"))})
    server = await start_ads(cache, engine="ngh2", limits=Limits(max_connections=1))
    async with H2Client(server.addresses[0], OWNER) as client:
        client.send(type_url=CLUSTER)
        await until(lambda: bool(client.responses), what="an answer")
        another = await Raw.to(server.addresses[0])
        await until(lambda: another.closed, what="the other to be cut")
        assert not client.closed


async def test_who_does_not_take_what_was_sent_before_the_end_keeps_no_connection(start_ads: StartAds) -> None:
    cache = SnapshotCache()
    cache.publish({OWNER: snapshot(Resource.of(CLUSTER, "a", bytes(16 << 20)))})
    limits = Limits(max_connections=1, connection_idle_s=0.1, keepalive_s=1_000.0)
    server = await start_ads(cache, engine="ngh2", limits=limits)
    async with H2Client(server.addresses[0], OWNER, window=1 << 28) as mute:
        mute.send(type_url=CLUSTER)
        mute.transport.pause_reading()
        await until(lambda: cache.clients(), what="its request")
        await until(lambda: server._servers[0]._connections and _is_stuck(server), what="no more to fit in")  # pyright: ignore
        mute.reset()
        await until(lambda: not server._servers[0]._connections, what="it to be cut")  # pyright: ignore


def _is_stuck(server: Any) -> bool:
    return all(each._paused for each in server._servers[0]._connections)


async def test_a_socket_that_is_served_is_not_taken_over(tmp_path: Path, start_ads: StartAds) -> None:
    where = {f"unix:{tmp_path}/xds": Principal("any")}
    await start_ads(SnapshotCache(), engine="ngh2", listen=where)
    with pytest.raises(ValueError, match="another process"):
        await serve_ads(SnapshotCache(), engine="ngh2", listen=where)


def test_a_response_is_made_of_the_very_bytes_of_its_resources() -> None:
    from controlplane.xds.streams import DELTA
    from controlplane.xds.subscription import Outgoing

    resource = Resource.of(CLUSTER, "a", bytes(1 << 20))
    assert any(part is resource.body for part in DELTA.encode(Outgoing(CLUSTER, "1", (resource,))))


@pytest.mark.parametrize("offered", ["h2", "http/1.1"])
def test_tls_is_done_record_by_record_for_http2_alone(authority: Authority, offered: str) -> None:
    leaf = authority.leaf("xds")
    server = Tls(ServerTls(KeyPair(leaf.cert_pem.encode(), leaf.key_pem.encode())).context)
    context = ssl.create_default_context(cadata=authority.cert_pem)
    context.set_alpn_protocols([offered])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="xds")

    def exchange() -> bytes:
        heard = server.receive(outgoing.read())
        incoming.write(server.send(b""))
        return heard

    def shake() -> None:
        for _ in range(4):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                exchange()

    if offered != "h2":
        shake()
        with pytest.raises(ssl.SSLError, match="h2"):
            exchange()
        return
    shake()
    said = bytes(range(256)) * 1_000
    client.write(said)
    assert exchange() == said
    incoming.write(server.send(said))
    heard = b""
    while len(heard) < len(said):
        heard += client.read(65_536)
    assert heard == said
