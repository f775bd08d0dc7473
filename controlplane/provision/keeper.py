"""Keeps one child process running: starts it, reads its output, starts it again with back-off, ends it by its id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The child asks the kernel (PR_SET_PDEATHSIG, on Linux) to be killed with its parent: one that is killed ends nobody.
# It asks in a program of its own, because code between fork and exec may deadlock under threads.
_LAUNCH: Final = (
    "import ctypes,os,signal,sys;"
    "sys.platform=='linux' and ctypes.CDLL(None).prctl(1,signal.SIGKILL);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)
_LINE_LIMIT_BYTES: Final = 64 * 1024
_LOG_LIMIT_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackOff:
    """Waits between starts: `first_s`, doubled up to `most_s`, from the beginning again after `steady_s` of running."""

    first_s: float = 0.1
    most_s: float = 10.0
    steady_s: float = 30.0


class Keeper:
    """`await keeper.start()` … `await keeper.stop()`; in between the process is started again whenever it ends.

    `on_line` gets each line of its output, `on_exit` its exit code and the seconds until the next start.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        on_line: Callable[[str], None],
        on_exit: Callable[[int, float], None],
        back_off: BackOff | None = None,
    ) -> None:
        self.restarts = 0
        self._command = tuple(command)
        self._log = log
        self._on_line = on_line
        self._on_exit = on_exit
        self._back_off = back_off or BackOff()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the running process; None between two runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Starts the process; raises OSError where it cannot be started at all."""
        self._process = await self._spawn()
        self._task = asyncio.create_task(self._keep(self._process))

    async def stop(self, *, within_s: float = 5.0) -> None:
        """Ends the process (SIGTERM, then SIGKILL after `within_s`) and starts it no more."""
        if self._task is None:
            return
        process, self._process = self._process, None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        if process is None or process.returncode is not None:
            return
        drain = asyncio.create_task(self._read(process))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), within_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        wait_s = self._back_off.first_s
        while True:
            began_at = time.monotonic()
            await self._read(process)
            code = await process.wait()
            if time.monotonic() - began_at >= self._back_off.steady_s:
                wait_s = self._back_off.first_s
            self._on_exit(code, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, self._back_off.most_s)
            self.restarts += 1
            process = self._process = await self._spawn()

    async def _spawn(self) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which ends its children in order.
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_LIMIT_BYTES,
            start_new_session=True,
        )

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await _line(process.stdout):
            self._append(line)
            self._on_line(line.decode("utf-8", "replace").rstrip("\n"))

    def _append(self, line: bytes) -> None:
        if self._log.exists() and self._log.stat().st_size + len(line) > _LOG_LIMIT_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as log:
            log.write(line)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Returns the next line; of one that is too long, its parts. Empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as fault:
        return fault.partial
    except asyncio.LimitOverrunError as fault:
        return await stream.readexactly(fault.consumed)
