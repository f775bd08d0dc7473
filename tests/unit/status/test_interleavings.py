"""However watch, writes, failures and changes interleave: statuses end as desired, with no write too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api.meta import ObjectKey
from controlplane.conditions import ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.kube.errors import ApiError
from controlplane.status.encode import encode
from controlplane.status.writer import Desired
from tests.unit.status.seen import CONTROLLER, NOW, SETTING, key
from tests.unit.status.world import World

KEYS = [key("HTTPRoute", name) for name in ("a", "b")]
VERDICTS = (true("Accepted"), false("Accepted", "Invalid", "no"), false("Accepted", "NoMatchingParent", ""))
STATUSES: list[ObjectStatus | None] = [None] + [
    ObjectStatus(parents=tuple(ParentStatus("", (verdict,), ParentRef("Gateway", name)) for name in names))
    for verdict in VERDICTS
    for names in (("edge",), ("edge", "other"))
]
FAILURES = [
    (ApiError(503, "Unavailable", "not now"), False),
    (ApiError(409, "Conflict", "they say"), False),
    (ApiError(0, "Timeout", "no answer"), True),
    (ApiError(0, "Timeout", "no answer"), False),
]

step = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(KEYS), st.integers(0, len(STATUSES) - 1), st.booleans()),
    st.tuples(st.just("edit"), st.sampled_from(KEYS)),
    st.tuples(st.just("theirs"), st.sampled_from(KEYS), st.integers(0, 3)),
    st.tuples(st.just("remake"), st.sampled_from(KEYS)),
    st.tuples(st.just("deliver"), st.integers(1, 3)),
    st.tuples(st.just("tick"), st.integers(1, 4)),
    st.tuples(st.just("advance"), st.sampled_from([0.05, 0.4, 2.0])),
    st.tuples(st.just("fail"), st.integers(0, len(FAILURES) - 1)),
    st.tuples(st.just("lead")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=40))
def test_statuses_end_as_desired_with_at_most_one_write_for_each_change(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_holds(steps))


async def _holds(steps: list[tuple[Any, ...]]) -> None:
    changes: Counter[ObjectKey] = Counter()
    theirs: dict[ObjectKey, list[dict[str, Any]]] = {each: [] for each in KEYS}
    async with World() as world:
        for each in KEYS:
            world.create(each)
        for name, *arguments in steps:
            await _take(world, changes, theirs, name, arguments)
            for object_ in KEYS:
                kept = [
                    each
                    for each in world.stored[object_].status.get("parents", [])
                    if each["controllerName"] != CONTROLLER
                ]
                assert kept == theirs[object_]
        world.failures.clear()
        for object_, desired in list(world.desired.items()):
            world.say(object_, Desired(desired.status))
        await world.calm()
        for object_ in KEYS:
            found = world.stored[object_]
            assert encode(object_, world.desired[object_].status, found, now=NOW, setting=SETTING) is None
            assert world.writes[object_] <= changes[object_]
        assert world.observed == world.stored
        before = len(world.requests)
        await world.calm()
        assert len(world.requests) == before


async def _take(
    world: World,
    changes: Counter[ObjectKey],
    theirs: dict[ObjectKey, list[dict[str, Any]]],
    name: str,
    arguments: list[Any],
) -> None:
    match name, arguments:
        case "say", [object_, index, settled]:
            if world.desired[object_].status != STATUSES[index]:
                changes[object_] += 1
            world.say(object_, Desired(STATUSES[index], settled=settled))
        case "edit", [object_]:
            changes[object_] += 1
            world.edit(object_)
        case "theirs", [object_, number]:
            entry = {"parentRef": {"name": "x"}, "controllerName": "example.com/c", "conditions": [{"n": number}]}
            theirs[object_] = [entry]
            ours = [
                each for each in world.stored[object_].status.get("parents", []) if each["controllerName"] == CONTROLLER
            ]
            world.set_status(object_, {"parents": [entry, *ours] if number % 2 else [*ours, entry]})
        case "remake", [object_]:
            changes[object_] += 1
            theirs[object_] = []
            said = world.desired[object_].status
            world.delete(object_)
            world.create(object_, said)
        case "deliver", [count]:
            world.deliver(count)
        case "tick", [count]:
            for _ in range(count):
                await asyncio.sleep(0)
        case "advance", [seconds]:
            await world.advance(seconds)
        case "fail", [index]:
            world.failures.append(FAILURES[index])
        case "lead", _:
            world.writer.lead(True)
        case _:
            raise AssertionError(name)
