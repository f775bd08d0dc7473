"""TCPRoutes, seen through a real Envoy: shares, what is refused, TLS towards backends, connections that stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.streams import Stream, StreamServer, ask_stream, tally
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN, SHARED, REFUSED, ENCRYPTED, CONTESTED, MOVING = 9300, 9301, 9302, 9303, 9304, 9305
MANY, MANY_TOO = 9306, 9307


def listener(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": "TCP"}


def ref(name: str, weight: int = 1) -> dict[str, Any]:
    return {"group": "dragoman.dev", "kind": "Backend", "name": name, "weight": weight}


def route(name: str, parent: dict[str, Any], *refs: dict[str, Any], created: str | None = None) -> m.Manifest:
    spec = {"parentRefs": [{"name": "edge", **parent}], "rules": [{"backendRefs": list(refs)}]}
    metadata = {"creationTimestamp": created} if created else {}
    return m.manifest(m.GATEWAY_API, "TCPRoute", name, spec, metadata=metadata)


def encrypted(name: str, port: int, sni: str) -> m.Manifest:
    tls = {"sni": sni, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
    spec = {"endpoints": [{"ip": {"address": "127.0.0.1", "port": port}}], "tls": tls}
    return m.manifest("dragoman.dev/v1alpha1", "Backend", name, spec)


OLDER = route("older", {"sectionName": "contested"}, ref("one"), created="2020-01-01T00:00:00Z")
NEWER = route("newer", {"sectionName": "contested"}, ref("two"), created="2021-01-01T00:00:00Z")


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    one: StreamServer
    two: StreamServer

    async def ask(self, port: int) -> str:
        return await ask_stream(self.gateway.port(port))

    async def answers(self, port: int, name: str) -> None:
        async def answered() -> bool:
            return await self.ask(port) == f"{name} hello"

        await until(answered, what=f"{name} to answer on {port}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    authority = Authority()
    context = authority.leaf("db.example.com").server_context(tmp_path_factory.mktemp("tls"))
    context.set_alpn_protocols(["db"])  # It would refuse a client that offers HTTP.
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(StreamServer("one"))
        two = await stack.enter_async_context(StreamServer("two"))
        secured = await stack.enter_async_context(StreamServer("secured", tls=context))
        names = ("plain", "shared", "refused", "encrypted", "contested", "moving", "many", "many-too")
        listeners = [listener(name, 9300 + number) for number, name in enumerate(names)]
        gateway = Gateway(
            {
                "base.yaml": [
                    GATEWAY_CLASS,
                    m.gateway(listeners=listeners),
                    m.backend("one", one.port),
                    m.backend("two", two.port),
                    m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": authority.cert_pem}),
                    encrypted("secured", secured.port, "db.example.com"),
                    encrypted("impostor", secured.port, "other.example.com"),
                ],
                "routes.yaml": [
                    route("plain", {"sectionName": "plain"}, ref("one")),
                    route("shared", {"port": SHARED}, ref("one", 5), ref("two", 3), ref("gone", 2), ref("secured", 0)),
                    route("refused", {"sectionName": "refused", "port": REFUSED}, ref("gone"), ref("impostor")),
                    route("encrypted", {"sectionName": "encrypted"}, ref("secured")),
                    OLDER,
                ],
                "newer.yaml": [NEWER],
                "moving.yaml": [route("moving", {"sectionName": "moving"}, ref("one"))],
            },
        )
        yield Scene(await stack.enter_async_context(gateway), one, two)


async def test_bytes_go_both_ways_for_as_long_as_both_ends_want(scene: Scene) -> None:
    async with await Stream.to(scene.gateway.port(PLAIN)) as stream:
        assert [await stream.ask(text) for text in ("a", "b", "x" * 60_000)] == [
            "one a",
            "one b",
            "one " + "x" * 60_000,
        ]
        stream.writer.write_eof()  # The backend still may answer.
        assert await asyncio.wait_for(stream.reader.read(), 5) == b"bye\n"


async def test_connections_are_shared_out_by_weight_and_the_share_of_an_invalid_backend_is_refused(
    scene: Scene,
) -> None:
    await scene.answers(PLAIN, "one")
    found = await tally(lambda: scene.ask(SHARED), 600)
    assert set(found) == {"one", "two", "nobody"}
    assert found["one"] == pytest.approx(300, abs=75)
    assert found["two"] == pytest.approx(180, abs=75)
    assert found["nobody"] == pytest.approx(120, abs=75)


async def test_a_backend_that_does_not_exist_or_is_another_than_it_should_be_gets_no_connection(scene: Scene) -> None:
    await scene.answers(PLAIN, "one")
    assert await tally(lambda: scene.ask(REFUSED), 10) == {"nobody": 10}


async def test_a_backend_that_asks_for_it_gets_tls_that_offers_no_protocol_of_http(scene: Scene) -> None:
    await scene.answers(ENCRYPTED, "secured")


async def test_the_oldest_of_several_routes_has_every_connection_until_it_goes(scene: Scene) -> None:
    await scene.answers(CONTESTED, "one")
    assert await tally(lambda: scene.ask(CONTESTED), 20) == {"one": 20}
    await scene.gateway.found("TCPRoute demo/newer", "TCPRoute demo/older has all that comes to the listener")


async def test_a_route_that_names_no_listener_is_on_every_one_of_its_kind(scene: Scene) -> None:
    scene.gateway.write("many.yaml", [route("many", {}, ref("two"), created="2022-01-01T00:00:00Z")])
    for port in (MANY, MANY_TOO):
        await scene.answers(port, "two")
    await scene.answers(PLAIN, "one")
    scene.gateway.remove("many.yaml")
    for port in (MANY, MANY_TOO):
        await scene.gateway.refuses(port)


async def test_no_connection_fails_or_is_cut_while_a_route_changes(scene: Scene) -> None:
    await scene.answers(MOVING, "one")
    done = asyncio.Event()

    async def connect() -> int:
        count = 0
        while not done.is_set():
            assert (await scene.ask(MOVING)).partition(" ")[0] in ("one", "two")
            count += 1
        return count

    async with await Stream.to(scene.gateway.port(MOVING)) as open_before, asyncio.TaskGroup() as group:
        assert await open_before.ask() == "one hello"
        workers = [group.create_task(connect()) for _ in range(4)]
        for refs, expected in [
            ([ref("two")], "two"),
            ([ref("one", 1), ref("two", 0)], "one"),
            ([ref("gone", 0), ref("two")], "two"),
        ]:
            scene.gateway.write("moving.yaml", [route("moving", {"sectionName": "moving"}, *refs)])
            await scene.answers(MOVING, expected)
            assert await open_before.ask() == "one hello"
        done.set()
        counts = await asyncio.gather(*workers)
    assert min(counts) > 5
