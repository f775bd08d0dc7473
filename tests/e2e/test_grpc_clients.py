"""gRPC's own xDS client resolves a target through the control plane, without any Envoy."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS, write_documents

_CALL = """
import sys, grpc
channel = grpc.insecure_channel("xds:///" + sys.argv[1])
call = channel.unary_unary("/test.Echo/Say", request_serializer=bytes, response_deserializer=bytes)
try:
    print(call(b"hello", timeout=10, wait_for_ready=True).decode())
except grpc.RpcError as error:
    print(error.code().name)
"""


@asynccontextmanager
async def _serve_echo() -> AsyncIterator[int]:
    async def say(request: bytes, context: object) -> bytes:
        return b"echo: " + request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(say)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def _call(xds: str, target: str) -> str:
    bootstrap = {
        "xds_servers": [{"server_uri": xds, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
        "node": {"id": "client-1", "cluster": "demo/edge"},
    }
    environment = {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "PATH": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CALL,
        target,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    return out.decode().strip()


async def test_grpc_resolves_a_target_and_calls_its_backend(tmp_path: Path) -> None:
    async with _serve_echo() as port:
        documents = [
            GATEWAY_CLASS,
            m.gateway(),
            m.backend("echo", port),
            m.route("echo", [m.to_backend("/test.Echo", "echo")], hostnames=["echo.example.com"]),
        ]
        write_documents(tmp_path / "all.yaml", documents)
        plane = ControlPlane(FileSource(tmp_path), bind=bind, listen={"127.0.0.1:0": Principal("any")})
        async with plane:
            assert plane.ads is not None
            assert await _call(plane.ads.addresses[0], "echo.example.com") == "echo: hello"
            assert plane.nacks == {}
