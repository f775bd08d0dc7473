# pyright: standard
"""Both engines of the gRPC worker, driven by grpcio's own client."""

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2

from dragoman.grpc_worker import Address, Call, Engine, GrpcServer, Handler, Limits, StatusCode, TlsFiles, serve
from tests.support.certificates import Authority, Certificate
from tests.support.waiting import until

METHOD = "/test.Service/Method"
PATIENCE_S = 30.0
Serve = Callable[..., Awaitable[GrpcServer]]


@pytest.fixture(params=["ngh2", "grpcio"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param


@pytest.fixture
async def serving(engine: Engine) -> AsyncIterator[Serve]:
    servers: list[GrpcServer] = []

    async def start(handler: Handler, *, listen: str = "127.0.0.1:0", **options: Any) -> GrpcServer:
        server = await serve({METHOD: handler}, listen=Address.parse(listen), engine=engine, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()


def echo(body: bytes, call: Call) -> None:
    call.done(body)


async def ask(
    server: GrpcServer,
    body: bytes = b"hello",
    *,
    method: str = METHOD,
    timeout_s: float = PATIENCE_S,
    **options: Any,
) -> bytes:
    async with grpc.aio.insecure_channel(str(server.address), options=_UNLIMITED) as channel:
        return await channel.unary_unary(method)(body, timeout=timeout_s, wait_for_ready=True, **options)


_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def failure_of(attempt: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await attempt
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_384, 70_000, 3_000_000])
async def test_a_message_of_any_size_comes_back_as_it_was_sent(serving: Serve, size: int) -> None:
    server = await serving(echo)
    body = os.urandom(size)
    assert await ask(server, body) == body


async def test_many_calls_at_once_each_get_their_own_answer(serving: Serve) -> None:
    server = await serving(echo)
    async with grpc.aio.insecure_channel(str(server.address)) as channel:
        method = channel.unary_unary(METHOD)
        bodies = [b"%d" % number for number in range(500)]
        assert await asyncio.gather(*(method(body, timeout=PATIENCE_S) for body in bodies)) == bodies


async def test_a_handler_may_answer_later_and_in_any_order(serving: Serve) -> None:
    kept: list[tuple[bytes, Call]] = []
    server = await serving(lambda body, call: kept.append((body, call)))
    answers = [asyncio.ensure_future(ask(server, b"%d" % number)) for number in range(3)]
    await until(lambda: len(kept) == 3, what="the calls to arrive")
    for body, call in reversed(kept):
        call.done(body * 2)
    assert await asyncio.gather(*answers) == [b"00", b"11", b"22"]


async def test_status_and_message_arrive_as_they_were_given(serving: Serve) -> None:
    message = "no such key: 100% gone, sorry – ключ\n"
    server = await serving(lambda _body, call: call.fail(StatusCode.PERMISSION_DENIED, message))
    error = await failure_of(ask(server))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error.details() == message


async def test_a_handler_that_raises_answers_internal_and_the_worker_lives_on(
    serving: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(body: bytes, call: Call) -> None:
        if body == b"bad":
            raise ZeroDivisionError("secret detail")
        call.done(body)

    server = await serving(handler)
    error = await failure_of(ask(server, b"bad"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    assert "ZeroDivisionError" in caplog.text
    assert await ask(server, b"good") == b"good"


async def test_only_the_first_answer_counts(serving: Serve) -> None:
    def handler(body: bytes, call: Call) -> None:
        call.done(body)
        call.done(b"second")
        call.fail(StatusCode.INTERNAL, "third")
        raise ValueError("fourth")

    assert await ask(await serving(handler)) == b"hello"


async def test_an_unknown_method_is_unimplemented(serving: Serve) -> None:
    error = await failure_of(ask(await serving(echo), method="/test.Service/Other"))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_above_the_limit_exhausts_resources(serving: Serve) -> None:
    server = await serving(echo, limits=Limits(max_message_bytes=1000))
    error = await failure_of(ask(server, bytes(1001)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await ask(server, bytes(1000)) == bytes(1000)


async def test_a_message_above_the_limit_has_a_reply_where_one_is_made_for_it(serving: Serve) -> None:
    limits = Limits(max_message_bytes=1000, too_large=lambda: b"too much")
    server = await serving(echo, limits=limits)
    assert await ask(server, bytes(1001)) == b"too much"
    # More than fits into what a peer may send before it is told to go on: it is answered before it has sent all.
    assert await ask(server, bytes(2_000_000)) == b"too much"
    assert await ask(server, bytes(1000)) == bytes(1000)


async def test_a_compressed_message_is_unimplemented(serving: Serve) -> None:
    error = await failure_of(ask(await serving(echo), bytes(1000), compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_handler_sees_the_deadline_of_the_client(serving: Serve) -> None:
    seen: list[float | None] = []

    def handler(body: bytes, call: Call) -> None:
        seen.append(call.deadline)
        call.done(body)

    server = await serving(handler)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask(server, timeout_s=30)
    assert seen[0] is not None
    assert began + 29 < seen[0] < loop.time() + 31
    async with grpc.aio.insecure_channel(str(server.address)) as channel:
        await channel.unary_unary(METHOD)(b"")
    assert seen[1] is None


async def test_a_call_is_cancelled_once_its_deadline_has_passed(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call))
    error = await failure_of(ask(server, timeout_s=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: kept[0].cancelled, what="the cancellation")
    kept[0].done(b"too late")
    assert not kept[0].done(b"still too late")


async def test_a_call_is_cancelled_when_the_client_gives_up(serving: Serve) -> None:
    kept: list[Call] = []

    def handler(body: bytes, call: Call) -> None:
        kept.append(call)
        if body == b"quick":
            call.done(body)

    server = await serving(handler)
    async with grpc.aio.insecure_channel(str(server.address)) as channel:
        method = channel.unary_unary(METHOD)
        call = method(b"slow")
        await until(lambda: len(kept) == 1, what="the call to arrive")
        assert not kept[0].cancelled
        call.cancel()
        await until(lambda: kept[0].cancelled, what="the cancellation")
        assert await method(b"quick", timeout=PATIENCE_S) == b"quick"
        assert not kept[1].cancelled


async def test_calls_are_cancelled_when_the_connection_ends(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call))
    channel = grpc.aio.insecure_channel(str(server.address))
    pending = channel.unary_unary(METHOD)(b"")
    await until(lambda: len(kept) == 1, what="the call to arrive")
    await channel.close()
    await until(lambda: kept[0].cancelled, what="the cancellation")
    pending.cancel()


async def test_every_call_that_ends_is_observed_once(serving: Serve) -> None:
    observed: list[tuple[str, StatusCode, float]] = []

    arrived: list[bytes] = []

    def handler(body: bytes, call: Call) -> None:
        arrived.append(body)
        if body == b"deny":
            call.fail(StatusCode.PERMISSION_DENIED, "")
        elif body != b"hang":
            call.done(body)

    server = await serving(handler, observe=lambda *seen: observed.append(seen))
    await ask(server)
    await failure_of(ask(server, b"deny"))
    hanging = asyncio.ensure_future(ask(server, b"hang", timeout_s=30))
    await until(lambda: arrived == [b"hello", b"deny", b"hang"], what="the call to arrive")
    hanging.cancel()
    await until(lambda: len(observed) == 3, what="three calls observed")
    assert [code for _, code, _ in observed] == [StatusCode.OK, StatusCode.PERMISSION_DENIED, StatusCode.CANCELLED]
    assert all(method == METHOD and 0 <= seconds < PATIENCE_S for method, _, seconds in observed)


async def check_health(server: GrpcServer, service: str = "") -> str:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    answer = health_pb2.HealthCheckResponse.FromString(
        await ask(server, request, method="/grpc.health.v1.Health/Check")
    )
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def test_health_is_what_the_owner_set(serving: Serve) -> None:
    server = await serving(echo)
    assert await check_health(server) == await check_health(server, "test.Service") == "SERVING"
    server.set_serving(False)
    assert await check_health(server) == "NOT_SERVING"
    assert await ask(server) == b"hello"
    error = await failure_of(check_health(server, "other.Service"))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_draining_lets_calls_in_flight_finish(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call))
    answer = asyncio.ensure_future(ask(server))
    await until(lambda: len(kept) == 1, what="the call to arrive")
    draining = asyncio.ensure_future(server.drain(PATIENCE_S))
    done, _ = await asyncio.wait({draining}, timeout=0.1)
    assert not done
    kept[0].done(b"in time")
    assert await answer == b"in time"
    await draining


async def test_draining_ends_after_its_grace(serving: Serve) -> None:
    kept: list[Call] = []
    server = await serving(lambda _body, call: kept.append(call))
    answer = asyncio.ensure_future(ask(server))
    await until(lambda: len(kept) == 1, what="the call to arrive")
    async with asyncio.timeout(PATIENCE_S):
        await server.drain(0.1)
    assert (await failure_of(answer)).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert kept[0].cancelled


async def test_a_unix_socket_is_for_its_owner_alone_and_goes_with_the_server(serving: Serve, tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    server = await serving(echo, listen=f"unix:{path}")
    assert str(server.address) == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await ask(server) == b"hello"
    await server.close()
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced_but_a_live_one_is_not(serving: Serve, tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = await serving(echo, listen=f"unix:{path}")
    with pytest.raises(OSError, match="another process listens"):
        await serving(echo, listen=f"unix:{path}")
    assert await ask(server) == b"hello"


async def test_a_file_in_place_of_the_socket_is_left_alone(serving: Serve, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("keep me")
    with pytest.raises(OSError, match="not a socket"):
        await serving(echo, listen=f"unix:{path}")
    assert path.read_text() == "keep me"


async def test_a_port_that_is_taken_is_an_error_that_names_it(serving: Serve) -> None:
    server = await serving(echo)
    with pytest.raises(OSError, match=str(server.address)):
        await serving(echo, listen=str(server.address))


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:443", "localhost:65535", "unix:/run/worker.sock"])
def test_an_address_prints_as_it_was_read(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "unix:", "9001", ":9001", "::1:9001", "host:port", "127.0.0.1:70000", "[::1]"])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)


async def test_it_serves_ipv6(serving: Serve) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    assert await ask(await serving(echo, listen="[::1]:0")) == b"hello"


async def ask_with_tls(server: GrpcServer, authority: Authority, client: Certificate | None) -> bytes:
    shown = (client.key_pem.encode(), client.cert_pem.encode()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.encode(), *shown)
    async with grpc.aio.secure_channel(str(server.address), credentials) as channel:
        return await channel.unary_unary(METHOD)(b"private", timeout=3)


async def test_it_serves_tls(serving: Serve, authority: Authority, tmp_path: Path) -> None:
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path))
    assert await ask_with_tls(await serving(echo, tls=files), authority, None) == b"private"


async def test_with_a_client_ca_only_its_clients_are_served(
    serving: Serve, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_text(authority.cert_pem)
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path), tmp_path / "ca.crt")
    server = await serving(echo, tls=files)
    assert await ask_with_tls(server, authority, authority.leaf("spiffe://mesh/envoy")) == b"private"
    for stranger in (None, Authority("somebody else").leaf("spiffe://mesh/envoy")):
        error = await failure_of(ask_with_tls(server, authority, stranger))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_new_certificate_on_disk_is_taken_in(serving: Serve, authority: Authority, tmp_path: Path) -> None:
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path))
    # Short times make the worker look often.
    server = await serving(echo, tls=files, limits=Limits(request_s=0.1))
    successor = Authority("the next authority")
    with pytest.raises(grpc.aio.AioRpcError):
        await ask_with_tls(server, successor, None)
    successor.leaf("127.0.0.1").write(tmp_path)

    async def served() -> bool:
        try:
            return await ask_with_tls(server, successor, None) == b"private"
        except grpc.aio.AioRpcError:
            return False

    await until(served, what="the new certificate")


@pytest.mark.parametrize("spoilt", ["tls.crt", "tls.key", "ca.crt"])
async def test_a_file_that_tls_cannot_use_is_named(authority: Authority, tmp_path: Path, spoilt: str) -> None:
    (tmp_path / "ca.crt").write_text(authority.cert_pem)
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path), tmp_path / "ca.crt")
    (tmp_path / spoilt).write_text("neither certificate nor key")
    with pytest.raises(OSError, match=f"{tmp_path / spoilt}.* cannot be used"):
        await serve({METHOD: echo}, listen=Address.parse("127.0.0.1:0"), tls=files)


async def test_the_password_of_a_key_is_not_asked_for(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.leaf("127.0.0.1").write(tmp_path)
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, secret))
    with pytest.raises(OSError, match=f"{key} cannot be used"):
        await serve({METHOD: echo}, listen=Address.parse("127.0.0.1:0"), tls=TlsFiles(certificate, key))


async def test_a_tls_client_that_does_not_agree_on_http2_is_cut(authority: Authority, tmp_path: Path) -> None:
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path))
    server = await serve({METHOD: echo}, listen=Address.parse("127.0.0.1:0"), tls=files)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.address.port, ssl=authority.client_context(), server_hostname="127.0.0.1"
    )
    try:
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    except ConnectionError:
        pass  # Cut so early that the system tells it as an error.
    finally:
        writer.close()
        await server.close()


async def test_without_ngh2_grpcio_serves_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ngh2", None)
    for name in ("ngh2_engine", "ngh2_connection"):
        monkeypatch.delitem(sys.modules, f"dragoman.grpc_worker.{name}", raising=False)
    server = await serve({METHOD: echo}, listen=Address.parse("127.0.0.1:0"), engine="ngh2")
    assert await ask(server) == b"hello"
    await server.close()
    assert [record.levelname for record in caplog.records if "grpcio" in record.message] == ["WARNING"]
