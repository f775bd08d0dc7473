"""Long work is done in slices on the loop, and on one state of what it reads."""

from __future__ import annotations

import asyncio
import json
import time

from hypothesis import given
from hypothesis import strategies as st

from controlplane.slices import Steps, encoding, finish, in_slices

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def work(steps: int, each_s: float = 0.001) -> Steps[int]:
    for _ in range(steps):
        until = time.perf_counter() + each_s
        while time.perf_counter() < until:
            pass
        yield
    return steps


async def test_the_loop_turns_while_long_work_is_done() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(turn())
    assert await in_slices(lambda: work(60), state=lambda: None, slice_s=0.004) == 60
    other.cancel()
    assert turns >= 10


async def test_work_begins_anew_when_what_it_reads_has_changed() -> None:
    begun: list[int] = []

    def reading() -> Steps[int]:
        begun.append(state)
        yield from work(20)
        return begun[-1]

    state = 0

    async def change() -> None:
        nonlocal state
        state = 1

    task = asyncio.create_task(change())
    assert await in_slices(reading, state=lambda: state, slice_s=0.004) == 1
    assert begun == [0, 1]
    await task


async def test_work_on_what_never_stands_still_is_done_in_the_end() -> None:
    now = 0

    def moving() -> int:
        nonlocal now
        now += 1
        return now

    assert await asyncio.wait_for(in_slices(lambda: work(20), state=moving, slice_s=0.002), 30) == 20


@given(_JSON)
def test_json_that_is_encoded_in_slices_says_the_same(value: object) -> None:
    assert json.loads(finish(encoding(value))) == json.loads(json.dumps(value))
