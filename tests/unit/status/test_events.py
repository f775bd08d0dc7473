"""Events tell each thing once, to nobody twice, and only while this replica leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition, false
from controlplane.kube.errors import ApiError
from controlplane.sources.kubernetes.observed import Observed
from controlplane.status.events import EventWriter
from controlplane.status.queue import Timer
from tests.support.waiting import until

KEY = ObjectKey("networking.k8s.io", "Ingress", "demo", "shop")
SEEN = Observed("networking.k8s.io/v1", "ingresses", "uid-1", "7", 3, {}, "")


@dataclass
class Api:
    """Takes Events, or refuses them."""

    made: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    refusals: list[int] = field(default_factory=list[int])
    asked: int = 0

    async def create(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked += 1
        assert path == "/apis/events.k8s.io/v1/namespaces/demo/events"
        if self.refusals:
            raise ApiError(self.refusals.pop(0), "Refused", "no")
        name = document["metadata"]["name"]
        if name in self.made:
            raise ApiError(409, "AlreadyExists", name)
        self.made[name] = document
        return document


@dataclass
class World:
    api: Api = field(default_factory=Api)
    wrong: list[Condition] = field(default_factory=list[Condition])
    leading: bool = True

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[EventWriter]:
        def at_once(_: float, call: Callable[[], None]) -> Timer:
            return asyncio.get_running_loop().call_soon(call)

        made = EventWriter(
            self.api,
            wrong=lambda key: self.wrong,
            observed=lambda key: SEEN,
            keys=lambda: [KEY],
            leading=lambda: self.leading,
            instance="dragoman-0",
            later=at_once,
        )
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()

    def notes(self) -> list[str]:
        return [each["note"] for each in self.api.made.values()]


def bad(message: str, field: str = "spec.tls[0].secretName") -> Condition:
    return false("ResolvedRefs", "InvalidCertificateRef", message, field)


async def test_each_thing_is_told_once() -> None:
    world = World(wrong=[bad("one")])
    async with world.writer() as writer:
        writer.enqueue([KEY])
        await until(lambda: world.notes() == ["spec.tls[0].secretName: one"], what="the first event")
        world.wrong = [bad("one"), bad("two")]
        writer.enqueue([KEY])
        await until(lambda: len(world.notes()) == 2, what="the second event")
        assert world.api.asked == 2
    (event, _) = world.api.made.values()
    assert event["regarding"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "namespace": "demo",
        "name": "shop",
        "uid": "uid-1",
    }
    assert (event["type"], event["reason"]) == ("Warning", "InvalidCertificateRef")


async def test_what_was_put_right_and_is_wrong_again_is_told_by_the_event_that_is_there() -> None:
    world = World(wrong=[bad("one")])
    async with world.writer() as writer:
        writer.enqueue([KEY])
        await until(lambda: world.api.asked == 1, what="the event")
        world.wrong = []
        writer.enqueue([KEY])
        await asyncio.sleep(0)
        writer.lead(True)
        world.wrong = [bad("one")]
        writer.enqueue([KEY])
        await until(lambda: world.api.asked == 2, what="a second try")
    assert len(world.api.made) == 1


async def test_who_does_not_lead_tells_nothing_until_it_does() -> None:
    world = World(wrong=[bad("one")], leading=False)
    async with world.writer() as writer:
        writer.enqueue([KEY])
        await asyncio.sleep(0.02)
        assert world.api.asked == 0
        world.leading = True
        writer.lead(True)
        await until(lambda: world.api.asked == 1, what="the event")


async def test_an_event_that_cannot_be_written_is_tried_again_but_not_where_it_is_forbidden() -> None:
    world = World(api=Api(refusals=[500, 503]), wrong=[bad("one")])
    async with world.writer() as writer:
        writer.enqueue([KEY])
        await until(lambda: len(world.api.made) == 1, what="the event")
        assert world.api.asked == 3
        world.api.refusals = [403]
        world.wrong = [bad("two")]
        writer.enqueue([KEY])
        await until(lambda: world.api.asked == 4, what="the refusal")
        await asyncio.sleep(0.02)
        assert world.api.asked == 4


async def test_much_that_is_wrong_is_told_up_to_a_bound_and_long_notes_are_cut() -> None:
    world = World(wrong=[bad(f"{index} " + "x" * 2000) for index in range(40)])
    async with world.writer() as writer:
        writer.enqueue([KEY])
        await until(lambda: world.api.asked == 16, what="the events")
        await asyncio.sleep(0.02)
    assert world.api.asked == 16
    assert {len(note) for note in world.notes()} == {1024}
