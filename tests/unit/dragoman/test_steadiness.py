"""What is done beside a serving loop does not hold it up."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time

import pytest

from dragoman.steadiness import steady_loop


async def turns_beside_a_busy_thread() -> int:
    """How often the loop has its turn while another thread computes for half a second of its own time."""
    ended = threading.Event()

    def compute() -> None:
        while time.thread_time() < 0.5:
            pass
        ended.set()

    threading.Thread(target=compute).start()
    turns = 0
    while not ended.is_set():
        # Waiting for anything, if only for an instant, gives the interpreter to the other thread.
        await asyncio.sleep(0.0001)
        turns += 1
    return turns


async def test_the_loop_has_its_turn_while_a_thread_computes() -> None:
    # Another process may take the processor from one of the two.
    unsteady = steady = 0
    for _ in range(5):
        unsteady = await turns_beside_a_busy_thread()
        with steady_loop():
            steady = await turns_beside_a_busy_thread()
        if steady > 1.5 * unsteady:
            return
    pytest.fail(f"{steady} turns instead of {unsteady}")


def test_what_serves_is_not_looked_through_again_and_again() -> None:
    full: list[int] = []

    def collected(phase: str, told: dict[str, int]) -> None:
        if phase == "stop" and told["generation"] == 2:
            full.append(told["collected"])

    with steady_loop():
        gc.callbacks.append(collected)
        try:
            # As many as a configuration of thousands of limits is made of, and they stay.
            kept = [[index] for index in range(200_000)]
        finally:
            gc.callbacks.remove(collected)
    assert len(kept) == 200_000
    assert not full


def test_everything_is_afterwards_as_it_was() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    with steady_loop():
        assert (gc.get_threshold(), sys.getswitchinterval()) != before
    assert (gc.get_threshold(), sys.getswitchinterval()) == before
