from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.kube.errors import ApiError
from controlplane.status.writer import Desired
from dragoman.metrics import Collected
from tests.unit.status.seen import CONTROLLER, by_type, key
from tests.unit.status.world import World

ROUTE = key("HTTPRoute")
GATEWAY = key("Gateway", "edge")


def route(*conditions: Condition) -> ObjectStatus:
    return ObjectStatus(parents=(ParentStatus("", conditions or (true("Accepted"),), ParentRef("Gateway", "edge")),))


def gateway(verdict: str, reason: str = "R") -> ObjectStatus:
    programmed = Condition("Programmed", verdict, reason)  # type: ignore[arg-type]
    listener = ListenerStatus("web", 0, ("HTTPRoute",), (true("Accepted"), programmed))
    return ObjectStatus((true("Accepted"), programmed), listeners=(listener,))


BAD = route(false("Accepted", "Invalid", "no"))


def accepted(world: World, object_: ObjectKey = ROUTE) -> tuple[str, str]:
    (entry,) = (each for each in world.stored[object_].status["parents"] if each["controllerName"] == CONTROLLER)
    return by_type(entry["conditions"])["Accepted"]


async def test_a_change_is_one_write_with_the_version_that_it_was_made_from() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        await world.calm()
        ((path, document),) = world.requests
        assert path == "/apis/gateway.networking.k8s.io/v1/namespaces/demo/httproutes/one/status"
        assert document["metadata"] == {"resourceVersion": "11"}
        assert accepted(world) == ("True", "Accepted")


async def test_nothing_is_written_when_nothing_changed() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        await world.calm()
        for _ in range(5):
            world.say(ROUTE, Desired(route()))
            await world.run()
        assert world.writes == {ROUTE: 1}
        assert world.writer.metrics.skipped >= 5


async def test_changes_that_come_together_are_one_write() -> None:
    async with World() as world:
        world.create(ROUTE, BAD)
        world.deliver()
        for status in (route(), BAD, route()):
            world.say(ROUTE, Desired(status))
        await world.run()
        assert world.writes == {ROUTE: 1}


async def test_a_change_during_a_write_is_written_upon_what_that_write_made() -> None:
    async with World() as world:
        world.gate = asyncio.Event()
        world.create(ROUTE, route())
        world.deliver()
        await world.run()
        world.say(ROUTE, Desired(BAD))
        await world.run()
        assert len(world.requests) == 1
        world.gate.set()
        await world.run()
        assert world.writes == {ROUTE: 2}
        assert world.writer.metrics.conflicts == 0
        assert accepted(world) == ("False", "Invalid")


async def test_until_the_watch_has_brought_a_write_its_answer_is_what_counts() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        world.deliver()
        await world.run()
        world.writer.enqueue([ROUTE])
        await world.run()
        world.say(ROUTE, Desired(BAD))
        await world.run()
        assert (world.writes, world.writer.metrics.conflicts) == ({ROUTE: 2}, 0)
        world.deliver(1)
        await world.run()
        assert world.writes == {ROUTE: 2}


async def test_a_conflict_is_written_again_upon_what_the_watch_brings() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        world.deliver()
        world.edit(ROUTE)
        await world.run()
        assert (len(world.requests), world.writes) == (1, {})
        world.writer.enqueue([ROUTE])
        await world.run()
        assert len(world.requests) == 1
        world.deliver()
        await world.run()
        assert world.writes == {ROUTE: 1}
        (entry,) = world.stored[ROUTE].status["parents"]
        assert entry["conditions"][0]["observedGeneration"] == 2


async def test_a_conflict_is_tried_again_ever_more_seldom_while_the_watch_is_silent() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        world.deliver()
        world.edit(ROUTE)
        await world.advance(60.0)
        assert 5 < len(world.requests) < 15
        assert world.writer.metrics.conflicts == len(world.requests)


async def test_what_is_gone_is_forgotten() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        world.deliver()
        world.delete(ROUTE)
        await world.run()
        await world.advance(60.0)
        assert (len(world.requests), world.writer.metrics.errors) == (1, 0)
        world.deliver()
        await world.run()
        assert not world.writer._notes


async def test_an_object_that_was_made_anew_is_not_taken_for_the_old_one() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        world.deliver()
        await world.run()
        world.delete(ROUTE)
        world.create(ROUTE, route())
        await world.calm()
        assert world.writes == {ROUTE: 2}
        assert accepted(world) == ("True", "Accepted")


@pytest.mark.parametrize("status", [0, 429, 500, 503])
async def test_a_failure_is_tried_again_after_a_while(status: int) -> None:
    async with World() as world:
        world.failures.extend([(ApiError(status, "X", "not now"), False)] * 3)
        world.create(ROUTE, route())
        world.deliver()
        await world.run()
        world.writer.enqueue([ROUTE])
        await world.run()
        assert len(world.requests) == 1
        await world.advance(5.0)
        assert (len(world.requests), world.writes) == (4, {ROUTE: 1})
        assert world.writer.metrics.errors == 3


async def test_the_api_server_is_left_alone_for_as_long_as_it_asks() -> None:
    async with World() as world:
        world.failures.append((ApiError(429, "TooManyRequests", "later", retry_after_s=20.0), False))
        world.create(ROUTE, route())
        world.deliver()
        await world.advance(19.0)
        assert len(world.requests) == 1
        await world.advance(2.0)
        assert world.writes == {ROUTE: 1}


async def test_a_write_whose_answer_was_lost_is_not_repeated() -> None:
    async with World() as world:
        world.failures.append((ApiError(0, "Timeout", "no answer"), True))
        world.create(ROUTE, route())
        await world.calm()
        assert world.writes == {ROUTE: 1}


async def test_what_the_api_server_refuses_waits_for_another_status() -> None:
    async with World() as world:
        world.failures.append((ApiError(422, "Invalid", "status.parents[0]: no"), False))
        world.create(ROUTE, route())
        await world.calm()
        assert len(world.requests) == 1
        world.say(ROUTE, Desired(BAD))
        await world.run()
        assert world.writes == {ROUTE: 1}


async def test_what_the_api_server_drops_is_not_written_for_ever() -> None:
    async with World() as world:
        world.drops = lambda status: {}
        world.create(ROUTE, route())
        await world.calm()
        assert len(world.requests) == 1


async def test_who_undoes_our_writes_is_answered_more_and_more_seldom() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        for _ in range(500):
            world.deliver()
            await world.run()
            if "parents" in world.stored[ROUTE].status:
                world.set_status(ROUTE, {})
            await world.advance(0.1)
        assert 3 < world.writes[ROUTE] < 15


async def test_what_is_not_settled_is_held_and_then_written_once() -> None:
    async with World() as world:
        world.create(GATEWAY)
        world.desired[GATEWAY] = Desired(gateway("Unknown"), settled=False)
        world.deliver()
        await world.advance(0.9)
        assert not world.requests
        world.say(GATEWAY, Desired(gateway("True")))
        await world.run()
        assert world.writes == {GATEWAY: 1}
        assert by_type(world.stored[GATEWAY].status["conditions"])["Programmed"] == ("True", "R")


async def test_what_does_not_settle_is_written_after_a_second_and_a_later_answer_is_a_change_of_its_own() -> None:
    async with World() as world:
        world.create(GATEWAY)
        world.desired[GATEWAY] = Desired(gateway("Unknown"), settled=False)
        world.deliver()
        for _ in range(6):
            world.writer.enqueue([GATEWAY])
            await world.advance(0.2)
        assert world.writes == {GATEWAY: 1}
        await world.calm(1)
        world.say(GATEWAY, Desired(gateway("True")))
        await world.run()
        assert world.writes == {GATEWAY: 2}


async def test_an_answer_that_stays_away_is_told_though_nobody_says_so() -> None:
    async with World() as world:
        world.create(GATEWAY)
        world.desired[GATEWAY] = Desired(gateway("True"))
        await world.calm()
        published = world.time

        def desired(_: ObjectKey) -> Desired:
            late = world.time >= published + 1.0
            return Desired(gateway("Unknown" if late else "True"), settled=False)

        world.tell = desired
        world.writer.enqueue([GATEWAY])
        await world.advance(0.99)
        assert world.writes == {GATEWAY: 1}
        await world.advance(0.1)
        assert world.writes == {GATEWAY: 2}
        await world.calm()
        assert world.writes == {GATEWAY: 2}


async def test_an_envoy_that_hangs_while_others_changes_go_on_is_noticed() -> None:
    async with World() as world:
        world.create(GATEWAY)
        world.desired[GATEWAY] = Desired(gateway("True"), settled=False)
        world.deliver()
        await world.advance(1.5)
        assert world.writes == {GATEWAY: 1}
        world.deliver()
        world.desired[GATEWAY] = Desired(gateway("Unknown"), settled=False)
        await world.advance(1.1)
        assert world.writes == {GATEWAY: 2}


async def test_a_status_about_an_older_version_waits_for_the_new_one() -> None:
    async with World() as world:
        world.create(ROUTE)
        world.desired[ROUTE] = Desired(route(), generation=1)
        await world.calm()
        world.edit(ROUTE)
        world.deliver()
        await world.advance(0.5)
        assert world.writes == {ROUTE: 1}
        world.say(ROUTE, Desired(BAD, generation=2))
        await world.run()
        assert world.writes == {ROUTE: 2}
        (entry,) = world.stored[ROUTE].status["parents"]
        assert entry["conditions"][0]["observedGeneration"] == 2


async def test_a_status_never_claims_a_version_that_it_is_not_about() -> None:
    async with World() as world:
        world.create(ROUTE)
        world.edit(ROUTE)
        world.desired[ROUTE] = Desired(route(), generation=1)
        await world.calm()
        (entry,) = world.stored[ROUTE].status["parents"]
        assert entry["conditions"][0]["observedGeneration"] == 1


async def test_writes_at_one_time_are_bounded_and_come_in_order() -> None:
    async with World(concurrency=4) as world:
        world.gate = asyncio.Event()
        keys = [key("HTTPRoute", f"r{n}") for n in range(40)]
        for each in keys:
            world.create(each, route())
        world.deliver()
        await world.run()
        assert (world.in_flight, len(world.requests)) == (4, 4)
        world.gate.set()
        for _ in range(10):
            await world.run()
        assert world.most_in_flight == 4
        assert [path.split("/")[-2] for path, _ in world.requests] == [each.name for each in keys]


async def test_who_comes_to_lead_looks_at_everything_and_who_does_not_writes_nothing() -> None:
    async with World() as world:
        world.leads = False
        world.create(ROUTE, route())
        await world.calm()
        assert not world.requests
        world.leads = True
        world.writer.lead(True)
        await world.run()
        assert world.writes == {ROUTE: 1}


async def test_who_leads_no_more_lets_go_of_what_waits() -> None:
    async with World(concurrency=1) as world:
        world.gate = asyncio.Event()
        for n in range(5):
            world.create(key("HTTPRoute", f"r{n}"), route())
        world.deliver()
        await world.run()
        world.leads = False
        world.writer.lead(False)
        world.gate.set()
        await world.calm()
        assert len(world.requests) == 1
        world.leads = True
        world.writer.lead(True)
        await world.calm()
        assert set(world.writes.values()) == {1}
        assert len(world.writes) == 5


async def test_a_status_that_cannot_be_told_hurts_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        other = key("HTTPRoute", "other")
        world.create(ROUTE, route(Condition("Accepted", "True", None)))  # type: ignore[arg-type]
        world.create(other, route())
        await world.calm()
        assert world.writes == {other: 1}
        assert world.writer.metrics.errors >= 1
        assert "HTTPRoute demo/one" in caplog.text


async def test_metrics_tell_of_writes_and_of_what_waits() -> None:
    async with World() as world:
        world.create(ROUTE, route())
        world.desired[GATEWAY] = Desired(gateway("Unknown"), settled=False)
        world._store(GATEWAY, world.stored[ROUTE])
        world.deliver()
        await world.run()
        found: Mapping[str, Any] = {
            sample.name: sample.value
            for family in Collected(world.writer.metrics.collect).collect()
            for sample in family.samples
        }
        assert found["dragoman_status_writes_total"] == 1
        assert found["dragoman_status_queue"] == 1
