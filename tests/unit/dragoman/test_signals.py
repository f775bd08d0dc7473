"""A process that is told to end does so in order, whichever way it is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator

import pytest

from dragoman.signals import serve_until

SCRIPT = """
import asyncio, os, signal, sys
from dragoman.signals import stop_on_signals

async def main():
    # The tests themselves may run under nohup.
    signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
    stop = stop_on_signals()
    os.kill(os.getpid(), int(sys.argv[1]))
    try:
        async with asyncio.timeout(0.2 if sys.argv[2] == "nohup" else 10):
            await stop.wait()
        print("ended in order")
    except TimeoutError:
        print("goes on")

asyncio.run(main())
"""


def said(number: signal.Signals, how: str = "") -> str:
    command = [sys.executable, "-c", SCRIPT, str(int(number)), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_that_is_told_to_end_or_whose_terminal_is_closed_ends_in_order(number: signal.Signals) -> None:
    assert said(number) == "ended in order\n"


def test_with_nohup_a_closed_terminal_ends_nothing() -> None:
    assert said(signal.SIGHUP, "nohup") == "goes on\n"


class Serving:
    """What serves, as its context tells; it starts when it is let."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.may_start = asyncio.Event()
        self.starting = asyncio.Event()

    @contextlib.asynccontextmanager
    async def here(self) -> AsyncGenerator[None]:
        try:
            self.starting.set()
            await self.may_start.wait()
            self.told.append("started")
            yield
        finally:
            self.told.append("ended")


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


async def test_what_serves_ends_when_it_is_told_to() -> None:
    stop, serving = asyncio.Event(), Serving()
    serving.may_start.set()
    running = asyncio.create_task(serve_until(stop, serving.here()))
    await serving.starting.wait()
    await asyncio.sleep(0)
    assert serving.told == ["started"]
    stop.set()
    await running
    assert serving.told == ["started", "ended"]


async def test_what_is_told_to_end_before_it_serves_gives_up_starting() -> None:
    stop, serving = asyncio.Event(), Serving()
    running = asyncio.create_task(serve_until(stop, serving.here()))
    await serving.starting.wait()
    stop.set()
    await running
    assert serving.told == ["ended"]


async def test_what_cannot_start_says_why() -> None:
    @contextlib.asynccontextmanager
    async def failing() -> AsyncGenerator[None]:
        raise OSError("the address is taken")
        yield

    with pytest.raises(OSError, match="taken"):
        await serve_until(asyncio.Event(), failing())
