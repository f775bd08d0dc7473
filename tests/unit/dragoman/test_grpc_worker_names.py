# pyright: standard
"""Who is let in where clients must show a certificate for a name."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest

from dragoman.grpc_worker import Address, Call, GrpcServer, TlsFiles, serve
from dragoman.grpc_worker.tls import is_for
from tests.support.certificates import Authority, Certificate

METHOD = "/test.Service/Echo"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def echo(body: bytes, call: Call) -> None:
    call.done(body)


async def ask(server: GrpcServer, authority: Authority, client: Certificate) -> bytes:
    shown = client.key_pem.encode(), client.cert_pem.encode()
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.encode(), *shown)
    async with grpc.aio.secure_channel(str(server.address), credentials) as channel:
        return await channel.unary_unary(METHOD)(b"private", timeout=3)


async def test_with_a_name_only_clients_of_that_name_are_served(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(authority.cert_pem)
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path), tmp_path / "ca.crt", "envoy.mesh.example")
    server = await serve({METHOD: echo}, listen=Address("127.0.0.1"), tls=files)
    try:
        for name in ("envoy.mesh.example", "*.mesh.example"):
            assert await ask(server, authority, authority.leaf("other.example", name)) == b"private"
        for name in ("mesh.example", "an.envoy.mesh.example", "spiffe://envoy.mesh.example", "*.example"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(server, authority, authority.leaf(name))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.close()


async def test_an_engine_that_cannot_look_at_names_does_not_serve_without(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(authority.cert_pem)
    files = TlsFiles(*authority.leaf("127.0.0.1").write(tmp_path), tmp_path / "ca.crt", "envoy")
    with pytest.raises(OSError, match="does not look at whom certificates of clients are for"):
        await serve({METHOD: echo}, listen=Address("127.0.0.1"), engine="grpcio", tls=files)


@pytest.mark.parametrize(
    ("name", "told", "fits"),
    [
        ("Envoy.Example", ("DNS", "envoy.example"), True),
        ("envoy.example.", ("DNS", "ENVOY.EXAMPLE"), True),
        ("example", ("DNS", "*"), False),
        (".example", ("DNS", "*.example"), False),
        ("10.0.0.1", ("IP Address", "10.0.0.1"), True),
        ("10.0.0.1", ("DNS", "10.0.0.1"), False),
        ("fd00::1", ("IP Address", "FD00:0:0:0:0:0:0:1\n"), True),
        ("spiffe://mesh/envoy", ("URI", "spiffe://mesh/envoy"), True),
        ("spiffe://mesh/envoy", ("DNS", "spiffe://mesh/envoy"), False),
        ("envoy", ("URI", "envoy"), False),
    ],
)
def test_whom_a_certificate_is_for(name: str, told: tuple[str, str], fits: bool) -> None:
    assert is_for({"subject": ((("commonName", name),),), "subjectAltName": (told,)}, name) is fits
    assert not is_for({}, name)
