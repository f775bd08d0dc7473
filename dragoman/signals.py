"""How a process is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from contextlib import AbstractAsyncContextManager


def stop_on_signals() -> asyncio.Event:
    """Returns an event that SIGTERM, SIGINT and SIGHUP set; a second one ends the process at once.

    SIGHUP comes when a terminal is closed; where it is ignored (nohup) it stays so.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, told, number)
    return stop


async def serve_until(stop: asyncio.Event, serving: AbstractAsyncContextManager[object]) -> None:
    """Serves until told to stop; told so while that is still being started, it gives up starting."""
    started = asyncio.Event()

    async def serve() -> None:
        async with serving:
            started.set()
            await stop.wait()

    serves, stopped = asyncio.create_task(serve()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serves, stopped), return_when=asyncio.FIRST_COMPLETED)
        if stopped.done() and not started.is_set():
            serves.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serves
    finally:
        stopped.cancel()
        serves.cancel()
        # The end of the interpreter has the collector look through everything, and what was half read is seconds of it.
        gc.freeze()
