"""TLSRoutes, seen through a real Envoy: TLS that goes through, TLS that ends, HTTPS beside them, and who has a name."""

from __future__ import annotations

import asyncio
import ssl
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
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIXED, QUIET = 443, 8443
PASS = {"mode": "Passthrough"}


def listener(name: str, tls: dict[str, Any], hostname: str | None = None, **more: Any) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": MIXED, "protocol": "TLS", "tls": tls, **host, **more}


def ends(secret: str) -> dict[str, Any]:
    return {"mode": "Terminate", "certificateRefs": [{"name": secret}]}


def route(name: str, section: str, *hostnames: str, to: str = "through", weight: int = 1) -> m.Manifest:
    refs = [{"group": "dragoman.dev", "kind": "Backend", "name": to, "weight": weight}]
    spec = {"parentRefs": [{"name": "edge", "sectionName": section}], "hostnames": list(hostnames)}
    return m.manifest(m.GATEWAY_API, "TLSRoute", name, spec | {"rules": [{"backendRefs": refs}]})


LISTENERS = [
    listener("any", PASS),
    listener("ended", ends("ended"), "*.ended.example.com"),
    listener("narrow", PASS, "*.narrow.example.com"),
    listener("web", ends("web"), "web.example.com", protocol="HTTPS"),
    listener("quiet", PASS, port=QUIET),
]
ROUTES = [
    route("through", "any", "a.example.com", "*.example.org"),
    # What these two want belongs to listeners whose hostnames are more specific, where no route wants it.
    route("covetous", "any", "x.narrow.example.com", "web.example.com", "*.com"),
    route("narrow", "narrow", "y.narrow.example.com"),
    route("ended", "ended", "a.ended.example.com", to="clear"),
    route("refused", "ended", "b.ended.example.com", to="gone"),
]


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    authority: Authority
    through: StreamServer

    async def connect(self, sni: str, port: int = MIXED) -> Stream:
        return await Stream.to(self.gateway.port(port), tls=self.authority.client_context(), sni=sni)

    async def ask(self, sni: str) -> str:
        return await ask_stream(self.gateway.port(MIXED), tls=self.authority.client_context(), sni=sni)

    async def answers(self, sni: str, name: str) -> None:
        async def answered() -> bool:
            return await self.ask(sni) == f"{name} hello"

        await until(answered, what=f"{name} to answer to {sni}")

    async def refuses(self, sni: str) -> None:
        async def refused() -> bool:
            try:
                await self.ask(sni)
            except (ConnectionError, ssl.SSLError):
                return True
            return False

        await until(refused, what=f"{sni} to be refused")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    authority = Authority()
    names = ["a.example.com", "*.example.org", "*.narrow.example.com", "other.com", "moving.example.edu"]
    context = authority.leaf(*names).server_context(tmp_path_factory.mktemp("tls"))
    async with AsyncExitStack() as stack:
        through = await stack.enter_async_context(StreamServer("through", tls=context))
        second = await stack.enter_async_context(StreamServer("second", tls=context))
        clear = await stack.enter_async_context(StreamServer("clear"))
        web = await stack.enter_async_context(Upstream("web"))
        files = {
            "base.yaml": [
                GATEWAY_CLASS,
                m.gateway(listeners=LISTENERS),
                m.backend("through", through.port),
                m.backend("second", second.port),
                m.backend("clear", clear.port),
                m.backend("web", web.port),
                authority.leaf("a.ended.example.com", "b.ended.example.com").secret("demo", "ended"),
                authority.leaf("web.example.com").secret("demo", "web"),
            ],
            "routes.yaml": [*ROUTES, m.route("web", [m.to_backend("/", "web")])],
            "moving.yaml": [route("moving", "any", "moving.example.edu")],
        }
        gateway = await stack.enter_async_context(Gateway(files))
        scene = Scene(gateway, authority, through)
        await scene.answers("a.example.com", "through")
        yield scene


async def test_tls_that_goes_through_is_ended_by_the_backend(scene: Scene) -> None:
    async with await scene.connect("a.example.com") as stream:
        assert {"a.example.com", "*.example.org"} < stream.names
        assert await stream.ask() == "through hello"
    assert await scene.ask("b.example.org") == "through hello"


async def test_tls_that_ends_here_reaches_the_backend_in_clear_text(scene: Scene) -> None:
    async with await scene.connect("a.ended.example.com") as stream:
        assert stream.names == {"a.ended.example.com", "b.ended.example.com"}
        assert await stream.ask() == "clear hello"


async def test_https_is_served_beside_both_on_one_port(scene: Scene) -> None:
    response = await scene.gateway.get(
        "/x", port=MIXED, host="web.example.com", tls=scene.authority.client_context(), sni="web.example.com"
    )
    assert (response.status, response.json()["name"]) == (200, "web")


@pytest.mark.parametrize("sni", ["x.narrow.example.com", "z.narrow.example.com", "c.ended.example.com"])
async def test_a_name_belongs_to_the_listener_that_is_closest_to_it_whoever_has_a_route_for_it(
    scene: Scene, sni: str
) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await scene.ask(sni)
    await scene.answers("y.narrow.example.com", "through")
    await scene.answers("other.com", "through")


@pytest.mark.parametrize("sni", ["a.example.net", "b.ended.example.com"])
async def test_a_name_without_a_route_or_without_a_backend_gets_no_connection(scene: Scene, sni: str) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await scene.connect(sni)


async def test_a_connection_that_does_not_begin_with_tls_is_closed(scene: Scene) -> None:
    before = scene.through.connections
    async with await Stream.to(scene.gateway.port(MIXED)) as stream:
        with pytest.raises(ConnectionError):
            await stream.ask("GET / HTTP/1.1")
    assert scene.through.connections == before


async def test_a_port_has_a_listener_as_soon_as_it_has_a_route_and_as_long(scene: Scene) -> None:
    await scene.gateway.refuses(QUIET)
    scene.gateway.write("quiet.yaml", [route("quiet", "quiet", "a.example.com")])

    async def answered() -> bool:
        async with await scene.connect("a.example.com", QUIET) as stream:
            return await stream.ask() == "through hello"

    await until(answered, what="the quiet port to answer")
    scene.gateway.remove("quiet.yaml")
    await scene.gateway.refuses(QUIET)


async def test_connections_of_other_names_live_on_while_one_route_comes_changes_and_goes(scene: Scene) -> None:
    await scene.answers("moving.example.edu", "through")
    assert scene.gateway.envoy is not None
    before = await scene.gateway.envoy.stats("listener_manager.")
    async with await scene.connect("a.example.com") as passed, await scene.connect("a.ended.example.com") as ended:
        for to in ("second", "through", "second"):
            scene.gateway.write("moving.yaml", [route("moving", "any", "moving.example.edu", to=to)])
            await scene.answers("moving.example.edu", to)
            assert (await passed.ask(), await ended.ask()) == ("through hello", "clear hello")
        scene.gateway.write("moving.yaml", [route("moving", "any", "moved.example.edu")])
        await scene.refuses("moving.example.edu")
        assert (await passed.ask(), await ended.ask()) == ("through hello", "clear hello")
        after = await scene.gateway.envoy.stats("listener_manager.")
        # Of all chains each edit drains one.
        for stat in ("listener_in_place_updated", "total_filter_chains_draining"):
            assert after[f"listener_manager.{stat}"] - before[f"listener_manager.{stat}"] == 4
    scene.gateway.write("moving.yaml", [route("moving", "any", "moving.example.edu")])
    await scene.answers("moving.example.edu", "through")


async def test_no_connection_fails_while_another_route_and_its_own_change(scene: Scene) -> None:
    await scene.answers("moving.example.edu", "through")
    done = asyncio.Event()

    async def connect(sni: str) -> int:
        count = 0
        while not done.is_set():
            assert (await scene.ask(sni)).partition(" ")[0] in ("through", "second", "clear")
            count += 1
        return count

    async with asyncio.TaskGroup() as group:
        names = ("a.example.com", "a.ended.example.com", "moving.example.edu")
        workers = [group.create_task(connect(name)) for name in names]
        for to in ("second", "through") * 3:
            scene.gateway.write("moving.yaml", [route("moving", "any", "moving.example.edu", to=to)])
            await scene.answers("moving.example.edu", to)
        done.set()
        assert min(await asyncio.gather(*workers)) > 5


async def test_many_connections_at_once_all_reach_the_backend(scene: Scene) -> None:
    found = await tally(lambda: scene.ask("a.example.com"), 100, at_once=25)
    assert found == {"through": 100}
