"""UDPRoutes, seen through a real Envoy of two workers: shares, what is dropped, and sessions that stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.streams import Datagrams, DatagramServer, ask_datagram, tally
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN, SHARED, DROPPED, MOVING, CONTESTED = 5300, 5301, 5302, 5303, 5304
NAMES = ("plain", "shared", "dropped", "moving", "contested")


def ref(name: str, weight: int = 1) -> dict[str, Any]:
    return {"group": "dragoman.dev", "kind": "Backend", "name": name, "weight": weight}


def route(name: str, *refs: dict[str, Any], section: str | None = None, created: str | None = None) -> m.Manifest:
    spec = {"parentRefs": [{"name": "edge", "sectionName": section or name}], "rules": [{"backendRefs": list(refs)}]}
    metadata = {"creationTimestamp": created} if created else {}
    return m.manifest(m.GATEWAY_API, "UDPRoute", name, spec, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    one: DatagramServer
    two: DatagramServer

    async def ask(self, port: int, *, within_s: float = 2.0) -> str:
        return await ask_datagram(self.gateway.port(port), within_s=within_s)

    async def answers(self, port: int, name: str) -> None:
        async def answered() -> bool:
            return await self.ask(port, within_s=0.2) == f"{name} hello"

        await until(answered, what=f"{name} to answer on {port}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(DatagramServer("one"))
        two = await stack.enter_async_context(DatagramServer("two"))
        web = await stack.enter_async_context(Upstream("web"))
        listeners = [{"name": name, "port": 5300 + i, "protocol": "UDP"} for i, name in enumerate(NAMES)]
        listeners.append({"name": "web", "port": PLAIN, "protocol": "HTTP"})
        nowhere = m.manifest("v1", "Service", "nowhere", {"ports": [{"port": 53, "protocol": "UDP"}]})
        files = {
            "base.yaml": [
                GATEWAY_CLASS,
                m.gateway(listeners=listeners),
                m.backend("one", one.port),
                m.backend("two", two.port),
                m.backend("web", web.port),
                nowhere,
                m.route("web", [m.to_backend("/", "web")]),
            ],
            "routes.yaml": [
                route("plain", ref("one")),
                route("shared", ref("one", 5), ref("two", 3), ref("gone", 1), {"name": "nowhere", "port": 53}),
                route("dropped", ref("gone")),
                route("older", ref("one"), section="contested", created="2020-01-01T00:00:00Z"),
                route("newer", ref("two"), section="contested", created="2021-01-01T00:00:00Z"),
            ],
            "moving.yaml": [route("moving", ref("one"))],
        }
        gateway = await stack.enter_async_context(Gateway(files, workers=2))
        scene = Scene(gateway, one, two)
        await scene.answers(PLAIN, "one")
        await scene.answers(MOVING, "one")
        yield scene


async def test_datagrams_go_both_ways_on_a_port_that_has_http_too(scene: Scene) -> None:
    with Datagrams(scene.gateway.port(PLAIN)) as client:
        assert [await client.ask(text) for text in ("a", "b", "x" * 1400)] == ["one a", "one b", "one " + "x" * 1400]
    assert (await scene.gateway.get("/", port=PLAIN)).json()["name"] == "web"


async def test_sessions_are_shared_out_by_weight_and_the_share_of_who_cannot_answer_is_dropped(scene: Scene) -> None:
    found = await tally(lambda: scene.ask(SHARED, within_s=1.0), 600, at_once=100)
    assert set(found) == {"one", "two", "nobody"}
    assert found["one"] == pytest.approx(300, abs=60)
    assert found["two"] == pytest.approx(180, abs=60)
    assert found["nobody"] == pytest.approx(120, abs=60)


async def test_a_route_without_any_valid_backend_drops_what_comes(scene: Scene) -> None:
    assert await tally(lambda: scene.ask(DROPPED, within_s=0.2), 5, at_once=5) == {"nobody": 5}


async def test_the_oldest_of_several_routes_has_every_datagram(scene: Scene) -> None:
    await scene.answers(CONTESTED, "one")
    assert await tally(lambda: scene.ask(CONTESTED), 20) == {"one": 20}
    await scene.gateway.found("UDPRoute demo/newer", "UDPRoute demo/older has all that comes to the listener")


async def test_all_that_a_client_sends_goes_to_one_backend_from_one_address(scene: Scene) -> None:
    for _ in range(10):
        before = scene.one.peers + scene.two.peers
        with Datagrams(scene.gateway.port(SHARED)) as client:
            try:
                first = await client.ask(within_s=0.3)
            except TimeoutError:
                continue
            assert [await client.ask() for _ in range(20)] == [first] * 20
        assert list((scene.one.peers + scene.two.peers - before).values()) == [21]


async def test_no_datagram_is_lost_and_no_session_moves_while_weights_and_backends_change(scene: Scene) -> None:
    done = asyncio.Event()

    async def come_anew() -> int:
        count = 0
        while not done.is_set():
            assert (await scene.ask(MOVING)).partition(" ")[0] in ("one", "two")
            count += 1
        return count

    async def stay(client: Datagrams) -> int:
        count = 0
        while not done.is_set():
            assert await client.ask(str(count)) == f"one {count}"
            count += 1
        return count

    with Datagrams(scene.gateway.port(MOVING)) as client:
        assert await client.ask() == "one hello"
        peers = set(scene.one.peers)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(come_anew()), group.create_task(stay(client))]
            for refs, expected in [
                ([ref("one"), ref("two", 1_000_000)], "two"),
                ([ref("one", 1_000_000), ref("two")], "one"),
                ([ref("one", 1), ref("two", 1_000_000), ref("gone", 0)], "two"),
            ]:
                scene.gateway.write("moving.yaml", [route("moving", *refs)])
                await scene.answers(MOVING, expected)
            done.set()
            assert min(await asyncio.gather(*workers)) > 5
        before = sum(scene.one.peers[peer] for peer in peers)
        assert await client.ask() == "one hello"
        assert sum(scene.one.peers[peer] for peer in peers) == before + 1, "the session had to begin again"


async def test_a_session_goes_to_another_backend_when_its_own_leaves_the_route(scene: Scene) -> None:
    scene.gateway.write("moving.yaml", [route("moving", ref("one"))])
    await scene.answers(MOVING, "one")
    with Datagrams(scene.gateway.port(MOVING)) as client:
        assert await client.ask() == "one hello"
        scene.gateway.write("moving.yaml", [route("moving", ref("two"))])

        async def moved() -> bool:
            return await client.ask(within_s=0.2) == "two hello"

        await until(moved, what="the session to go to two")
