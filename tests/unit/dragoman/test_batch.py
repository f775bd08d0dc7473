"""What is due for the input at hand is done at its end."""

from __future__ import annotations

import asyncio
from typing import Any

from dragoman.batch import Batch


async def test_what_is_due_is_called_at_the_end_of_the_batch_in_order() -> None:
    batch, called = Batch(asyncio.get_running_loop()), list[str]()
    batch.begin()
    batch.soon(lambda: called.append("first"))
    batch.soon(lambda: called.append("second"))
    assert called == []
    batch.end()
    assert called == ["first", "second"]
    batch.begin()
    batch.end()
    assert called == ["first", "second"]


async def test_what_is_due_because_of_what_was_due_is_called_as_well() -> None:
    batch, called = Batch(asyncio.get_running_loop()), list[str]()
    batch.begin()
    batch.soon(lambda: batch.soon(lambda: called.append("then")))
    batch.end()
    assert called == ["then"]


async def test_outside_of_a_batch_it_is_called_in_the_next_turn_of_the_loop() -> None:
    batch, called = Batch(asyncio.get_running_loop()), list[str]()
    batch.soon(lambda: called.append("soon"))
    assert called == []
    await asyncio.sleep(0)
    assert called == ["soon"]


async def test_one_that_fails_keeps_no_other_from_being_called() -> None:
    loop, told, called = asyncio.get_running_loop(), list[dict[str, Any]](), list[str]()
    loop.set_exception_handler(lambda _, context: told.append(context))
    batch = Batch(loop)

    def fail() -> None:
        raise ValueError("no")

    batch.begin()
    batch.soon(fail)
    batch.soon(lambda: called.append("after"))
    batch.end()
    assert called == ["after"]
    assert [str(each["exception"]) for each in told] == ["no"]
    batch.soon(lambda: called.append("outside"))
    await asyncio.sleep(0)
    assert called == ["after", "outside"]
