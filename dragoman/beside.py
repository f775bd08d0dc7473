"""Does work in a thread beside the event loop, which is neither held up by it nor kept from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def beside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns what `work` returns, or raises what it raises; meanwhile the loop goes on.

    Nobody waits for a thread that was given up, not even the end of the process: a large file may take it seconds,
    and a file system that is gone for ever. So what must be finished, such as writing, belongs in `asyncio.to_thread`.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    call = partial(work, *args, **kwargs)
    name = getattr(work, "__name__", "beside")
    threading.Thread(target=_run, args=(call, loop, outcome), name=name, daemon=True).start()
    try:
        return await outcome
    finally:
        # As below.
        del outcome


def _run(call: Callable[[], T], loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[T]) -> None:
    result, error = None, None
    try:
        result = call()
    except BaseException as fault:
        error = fault
    if not outcome.cancelled():
        with contextlib.suppress(RuntimeError):  # The loop has ended, and with it whoever asked.
            loop.call_soon_threadsafe(_settle, outcome, result, error)
    # What is given up is let go here, and not by the loop. And an error's traceback has this frame: were the error in
    # it, all that it was about, which may be large, would stay until the collector finds it.
    del result, error, outcome


def _settle(outcome: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    if outcome.done():
        return
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)  # pyright: ignore[reportArgumentType]
