"""Work beside the loop holds up neither the loop nor the end of the process."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from dragoman.beside import beside
from tests.support.waiting import until

# A thread that waits for ever, as one does that reads from a file system that is gone.
GIVEN_UP = """
import asyncio, threading
from dragoman.beside import beside

async def main():
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work():
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait()

    waiting = asyncio.create_task(beside(work))
    await begun.wait()
    waiting.cancel()

asyncio.run(main())
print("ended")
"""


async def test_what_work_returns_and_what_it_raises_comes_back() -> None:
    assert await beside(lambda a, b: a + b, 1, b=2) == 3
    with pytest.raises(ValueError, match="no number"):
        await beside(int, "no number")


async def test_the_loop_goes_on_meanwhile() -> None:
    let_go = threading.Event()
    waiting = asyncio.create_task(beside(let_go.wait, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    let_go.set()
    assert await waiting


async def test_what_nobody_waits_for_any_more_is_let_go_by_the_thread() -> None:
    begun, let_go, gone_in = threading.Event(), threading.Event(), list[threading.Thread]()

    class Large:
        def __del__(self) -> None:
            gone_in.append(threading.current_thread())
            gone.set()

    gone = threading.Event()

    def work() -> Large:
        begun.set()
        let_go.wait(10)
        return Large()

    waiting = asyncio.create_task(beside(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    let_go.set()
    await asyncio.to_thread(gone.wait, 10)
    assert gone_in != [threading.main_thread()]


async def test_what_work_that_failed_was_about_does_not_wait_for_the_collector() -> None:
    class Large:
        pass

    held: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no good")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="no good") as raised:
            await beside(work)
        del raised
        # The thread may be about to end.
        await until(lambda: held[0]() is None, what="the end of what nobody needs")
    finally:
        gc.enable()


def test_a_process_ends_though_work_that_was_given_up_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_UP], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("ended\n", "")
