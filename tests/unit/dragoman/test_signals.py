"""A process that is told to end does so in order, whichever way it is told."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
