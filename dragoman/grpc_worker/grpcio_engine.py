# pyright: standard
"""The engine that runs wherever grpcio does: its asyncio server, a task and a future per call."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc
import grpc.aio

from dragoman.batch import Batch
from dragoman.grpc_worker import sockets
from dragoman.grpc_worker.api import Address, Call, CallObserver, Handler, Limits, StatusCode, TlsFiles
from dragoman.grpc_worker.health import CHECK_METHOD, HealthCheck
from dragoman.grpc_worker.tls import Watched

log = logging.getLogger("dragoman.grpc_worker")

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
IDENTITY_ALONE = 1


async def start(
    methods: Mapping[str, Handler],
    *,
    listen: Address,
    limits: Limits,
    tls: TlsFiles | None,
    observe: CallObserver | None,
    unix_mode: int,
    health_names: Sequence[str] = (),
    batch: Batch | None = None,
) -> "GrpcioServer":
    """Listens and serves; raises OSError when it cannot. grpcio cannot limit the number of connections, and has
    no use for a batch: it hears of calls by itself.
    """
    health = HealthCheck(methods, health_names)
    served = {**methods, CHECK_METHOD: health.check}
    server = grpc.aio.server(options=options(limits))
    if limits.too_large is not None:
        bounded = {
            name: _bounded(handler, limits.max_message_bytes, limits.too_large) for name, handler in methods.items()
        }
        served |= bounded
    server.add_generic_rpc_handlers((_Router(served, observe),))
    address = bind(server, listen, tls, unix_mode)
    await server.start()
    return GrpcioServer(server, address, health)


class GrpcioServer:
    """A `GrpcServer` around `grpc.aio.Server`."""

    def __init__(self, server: grpc.aio.Server, address: Address, health: HealthCheck) -> None:
        self._server = server
        self._address = address
        self._health = health
        self._inode = os.lstat(address.path).st_ino if address.is_unix else 0

    @property
    def address(self) -> Address:
        return self._address

    def set_serving(self, serving: bool) -> None:
        self._health.serving = serving

    async def drain(self, grace_s: float) -> None:
        self.set_serving(False)
        await self._server.stop(grace_s)
        self._unlink()

    async def close(self) -> None:
        await self._server.stop(None)
        self._unlink()

    def _unlink(self) -> None:
        if self._address.is_unix:
            sockets.unlink_own(self._address.path, self._inode)


class _Call:
    """A `Call` that resolves a future, unless the handler finishes it before there is one."""

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.cancelled = False
        self.result: tuple[StatusCode, bytes | str] | None = None
        self._waiting: asyncio.Future[None] | None = None

    def done(self, body: bytes) -> None:
        self._finish(StatusCode.OK, body)

    def fail(self, code: StatusCode, message: str) -> None:
        self._finish(code, message)

    async def wait(self) -> tuple[StatusCode, bytes | str]:
        if self.result is None:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        assert self.result is not None
        return self.result

    def _finish(self, code: StatusCode, answer: bytes | str) -> None:
        if self.result is None and not self.cancelled:
            self.result = (code, answer)
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(None)


class _Router(grpc.GenericRpcHandler):
    def __init__(self, methods: Mapping[str, Handler], observe: CallObserver | None) -> None:
        self._handlers = {
            name: grpc.unary_unary_rpc_method_handler(_serve_with(name, handler, observe))
            for name, handler in methods.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)


def _serve_with(name: str, handler: Handler, observe: CallObserver | None):
    async def serve(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        loop = asyncio.get_running_loop()
        remaining_s = context.time_remaining()
        call = _Call(loop.time() + remaining_s if remaining_s is not None else None)
        started = time.perf_counter()
        code = StatusCode.CANCELLED
        try:
            code, answer = await _answer(name, handler, body, call)
        finally:
            call.cancelled = call.result is None
            if observe is not None:
                observe(name, code, time.perf_counter() - started)
        if isinstance(answer, str):
            await context.abort(_GRPC_CODES[int(code)], answer)
        return answer

    return serve


def _bounded(handler: Handler, max_bytes: int, too_large: Callable[[], bytes]) -> Handler:
    def answer(body: bytes, call: Call) -> None:
        if len(body) > max_bytes:
            call.done(too_large())
        else:
            handler(body, call)

    return answer


async def _answer(name: str, handler: Handler, body: bytes, call: _Call) -> tuple[StatusCode, bytes | str]:
    try:
        handler(body, call)
    except Exception:
        log.exception("the handler of %s failed", name)
        call.fail(StatusCode.INTERNAL, "internal error")
    return await call.wait()


def options(limits: Limits) -> list[tuple[str, int]]:
    age = [
        ("grpc.max_connection_age_ms", int(limits.connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(limits.connection_age_grace_s * 1000)),
    ]
    return [
        *(age if limits.connection_age_s else ()),
        (
            "grpc.max_receive_message_length",
            limits.max_buffered_bytes if limits.too_large else limits.max_message_bytes,
        ),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        ("grpc.max_metadata_size", limits.max_header_list_bytes),
        ("grpc.max_connection_idle_ms", int(limits.connection_idle_s * 1000)),
        ("grpc.keepalive_time_ms", int(limits.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.keepalive_timeout_s * 1000)),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1000)),
        ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ALONE),
        # Two servers on one port would share its connections without anybody noticing.
        ("grpc.so_reuseport", 0),
    ]


def bind(server: grpc.aio.Server, listen: Address, tls: TlsFiles | None, unix_mode: int) -> Address:
    if tls is not None and tls.client_san:
        raise OSError(f"cannot listen on {listen}: this engine does not look at whom certificates of clients are for")
    if listen.is_unix:
        sockets.clear_stale(listen.path)
    try:
        with _creating_files_with(unix_mode if listen.is_unix else None):
            port = (
                server.add_secure_port(str(listen), _credentials(tls)) if tls else server.add_insecure_port(str(listen))
            )
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: {error}") from error
    return listen if listen.is_unix else Address(host=listen.host, port=port)


@contextmanager
def _creating_files_with(mode: int | None) -> Iterator[None]:
    if mode is None:
        yield
        return
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    watched = Watched(files)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Called for each handshake; None keeps the certificate in use.
        try:
            return _certificate(files) if watched.changed() else None
        except OSError as error:
            log.error("the new certificate %s is not used: %s", files.certificate, error)
            return None

    return grpc.dynamic_ssl_server_credentials(
        _certificate(files),
        fetch,  # pyright: ignore[reportArgumentType]  (the stubs forget None, which its documentation has)
        require_client_authentication=files.client_ca is not None,
    )


def _certificate(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pair = (files.private_key.read_bytes(), files.certificate.read_bytes())
    client_ca = files.client_ca.read_bytes() if files.client_ca is not None else None
    return grpc.ssl_server_certificate_configuration([pair], client_ca)
