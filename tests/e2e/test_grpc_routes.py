"""GRPCRoutes, seen by gRPC clients through a real Envoy: which calls go where, and what the others are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOST = "grpc.example.com"


@dataclass
class Server:
    """A gRPC server that answers every call with its name, and streams back what it is sent."""

    name: str
    port: int = 0
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Server]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Everything(self),))
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        self._server.calls.append((method, dict(handler_call_details.invocation_metadata)))

        async def answer(request: bytes, context: Any) -> bytes:
            return self._server.name.encode()

        async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request

        if method.endswith("/Chat"):
            return grpc.stream_stream_rpc_method_handler(echo)  # pyright: ignore[reportArgumentType]
        return grpc.unary_unary_rpc_method_handler(answer)  # pyright: ignore[reportArgumentType]


def to(*names: str, **more: Any) -> dict[str, Any]:
    refs = [{"group": "dragoman.dev", "kind": "Backend", "name": name} for name in names]
    return {"backendRefs": refs, **more}


def method(service: str | None = None, name: str | None = None, kind: str = "Exact", **headers: str) -> dict[str, Any]:
    asked = {"service": service, "method": name}
    called = {key: value for key, value in asked.items() if value}
    match: dict[str, Any] = {"method": {"type": kind, **called}} if called else {}
    if headers:
        match["headers"] = [{"name": key.replace("_", "-"), "value": value} for key, value in headers.items()]
    return {"matches": [match]}


def set_headers(**headers: str) -> dict[str, Any]:
    return {"set": [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]}


RULES: list[dict[str, Any]] = [
    {**method(None, "List"), **to("b")},
    {**method("shop.Cart"), **to("a")},
    {**method("shop.Cart", "Add"), **to("b")},
    {**method("shop.Cart", "Add", x_version="2"), **to("a")},
    {**method(r"log\.v\d+", "Get.*|Head", "RegularExpression"), **to("a")},
    {**method("shop.Gone"), **to("missing")},
    {**method("shop.Empty")},
    {**method("shop.Share"), **to("a", "missing")},
    {
        **method("shop.Edited"),
        **to(
            "a",
            filters=[
                {"type": "RequestHeaderModifier", "requestHeaderModifier": set_headers(x_from="gateway")},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": set_headers(x_to="client")},
            ],
        ),
    },
    {
        **method("shop.Copied"),
        **to(
            "a",
            filters=[
                {
                    "type": "RequestMirror",
                    "requestMirror": {"backendRef": {"group": "dragoman.dev", "kind": "Backend", "name": "b"}},
                }
            ],
        ),
    },
]


def grpc_route(name: str, rules: Sequence[Any], *hostnames: str, section: str = "http", **metadata: Any) -> m.Manifest:
    spec = {"parentRefs": [{"name": "edge", "sectionName": section}], "hostnames": [*hostnames], "rules": [*rules]}
    return m.manifest(m.GATEWAY_API, "GRPCRoute", name, spec, metadata=metadata)


@dataclass
class Scene:
    gateway: Gateway
    a: Server
    b: Server
    authority: Authority

    async def call(
        self, path: str, *, host: str = HOST, port: int = 80, metadata: dict[str, str] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Makes a call; returns its answer (or the name of its error) and the headers that came with it."""
        options = [("grpc.default_authority", host), ("grpc.ssl_target_name_override", host)]
        target = f"127.0.0.1:{self.gateway.port(port)}"
        if port == 443:
            credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.encode())
            channel = grpc.aio.secure_channel(target, credentials, options)
        else:
            channel = grpc.aio.insecure_channel(target, options)
        async with channel:
            call = channel.unary_unary(path)(b"", timeout=10, metadata=tuple((metadata or {}).items()))
            try:
                answer: bytes = await call
            except grpc.aio.AioRpcError as error:
                return error.code().name, {}
            return answer.decode(), dict(await call.initial_metadata())  # pyright: ignore[reportArgumentType]

    async def answers(self, path: str, expected: str, **more: Any) -> None:
        async def answered() -> bool:
            return (await self.call(path, **more))[0] == expected

        await until(answered, within_s=10, what=f"{path} to be answered with {expected}")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene() -> AsyncIterator[Scene]:
    authority = Authority()
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "edge"}]}},
    ]
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(Server(name).run()) for name in ("a", "b")]
        documents: list[Any] = [
            GATEWAY_CLASS,
            m.gateway(listeners=listeners),
            authority.leaf(HOST).secret("demo", "edge"),
            *(m.backend(each.name, each.port) for each in (a, b)),
            grpc_route("shop", RULES, HOST),
            grpc_route("secure", [to("a")], HOST, section="https"),
        ]
        gateway = await stack.enter_async_context(Gateway({"all.yaml": documents}))
        yield Scene(gateway, a, b, authority)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/shop.Cart/Remove", "a"),
        ("/shop.Cart/Add", "b"),
        ("/shop.Cart/List", "a"),
        ("/shop.Carts/Remove", "UNIMPLEMENTED"),
        ("/other.Cart/List", "b"),
        ("/other.Cart/Lists", "UNIMPLEMENTED"),
        ("/log.v12/GetAll", "a"),
        ("/log.v12/Head", "a"),
        ("/log.v12/Heads", "UNIMPLEMENTED"),
        ("/log.v/Head", "UNIMPLEMENTED"),
    ],
)
async def test_a_call_goes_where_its_service_and_method_say(scene: Scene, path: str, expected: str) -> None:
    assert (await scene.call(path))[0] == expected


async def test_headers_decide_among_rules_for_one_method(scene: Scene) -> None:
    assert (await scene.call("/shop.Cart/Add", metadata={"x-version": "2"}))[0] == "a"
    assert (await scene.call("/shop.Cart/Add", metadata={"x-version": "3"}))[0] == "b"


async def test_a_call_to_another_hostname_is_unimplemented(scene: Scene) -> None:
    assert (await scene.call("/shop.Cart/Add", host="other.example.com"))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize("service", ["shop.Gone", "shop.Empty"])
async def test_a_call_without_a_backend_is_unavailable(scene: Scene, service: str) -> None:
    assert (await scene.call(f"/{service}/Get"))[0] == "UNAVAILABLE"


async def test_the_share_of_an_invalid_backend_is_unavailable(scene: Scene) -> None:
    found = Counter([(await scene.call("/shop.Share/Get"))[0] for _ in range(40)])
    assert found.keys() == {"a", "UNAVAILABLE"}


async def test_headers_of_calls_and_answers_are_changed(scene: Scene) -> None:
    answer, headers = await scene.call("/shop.Edited/Get")
    assert (answer, headers["x-to"]) == ("a", "client")
    path, metadata = scene.a.calls[-1]
    assert (path, metadata["x-from"]) == ("/shop.Edited/Get", "gateway")


async def test_a_copy_of_a_call_goes_to_another_backend(scene: Scene) -> None:
    assert (await scene.call("/shop.Copied/Get"))[0] == "a"
    await until(
        lambda: any(path == "/shop.Copied/Get" for path, _ in scene.b.calls), within_s=5, what="the copy to arrive"
    )


async def test_messages_flow_both_ways_while_a_stream_is_open(scene: Scene) -> None:
    options = [("grpc.default_authority", HOST)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scene.gateway.port(80)}", options) as channel:
        call = channel.stream_stream("/shop.Cart/Chat")(timeout=10)
        for text in (b"one", b"two"):
            await call.write(text)
            assert await call.read() == text
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_calls_come_over_tls(scene: Scene) -> None:
    assert (await scene.call("/shop.Any/Get", port=443))[0] == "a"


async def test_the_older_kind_of_route_has_the_hostname() -> None:
    ages = {"old": "2020-01-01T00:00:00Z", "new": "2021-01-01T00:00:00Z"}
    async with Server("a").run() as server:

        def documents(pages: str, calls: str) -> list[Any]:
            route = m.route("pages", [m.to_backend("/", "a")], hostnames=["*.example.com"])
            route["metadata"]["creationTimestamp"] = ages[pages]
            return [
                GATEWAY_CLASS,
                m.gateway(),
                m.backend("a", server.port),
                route,
                grpc_route("calls", [to("a")], HOST, creationTimestamp=ages[calls]),
            ]

        async with Gateway({"all.yaml": documents("new", "old")}) as gateway:
            scene = Scene(gateway, server, server, Authority())
            await scene.answers("/shop.Cart/Add", "a")
            await gateway.found("HTTPRoute demo/pages", "GRPCRoute demo/calls has a hostname of this route")
            gateway.write("all.yaml", documents("old", "new"))
            await gateway.found("GRPCRoute demo/calls", "HTTPRoute demo/pages has a hostname of this route")
            # To the backend in HTTP/1.1, which a gRPC server refuses.
            await scene.answers("/shop.Cart/Add", "UNAVAILABLE")
