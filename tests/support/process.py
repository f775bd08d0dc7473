"""A child process of a test: logged to a file, ended by its id, gone when the test run is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# PR_SET_PDEATHSIG, set in the child by a program of its own: preexec_fn may deadlock under threads.
_DIE_WITH_PARENT = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGKILL);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


class ChildProcess:
    """A process started now; `log` is where its output goes (standard output and error together)."""

    def __init__(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.command = tuple(command)
        self.log = log
        launcher = (sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                (*launcher, *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def output(self) -> str:
        """Everything that the process has written so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def tail(self, lines: int = 60) -> str:
        """The last lines of the output, headed by the command: what a failure report shows."""
        last = self.output().splitlines()[-lines:]
        return "\n".join([f"$ {' '.join(self.command)}  (exit code {self.exit_code})", *last])

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless the process has ended."""
        if self.exit_code is None:
            self._process.send_signal(number)

    async def ended(self, *, within_s: float = 30.0) -> int:
        """Waits for the end of the process and returns its exit code; raises AssertionError past the deadline."""
        deadline = time.monotonic() + within_s
        while (code := self.exit_code) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {within_s} s\n{self.tail()}")
            await asyncio.sleep(0.005)
        return code

    async def stop(self, *, within_s: float = 30.0) -> int:
        """Asks the process to end, kills it when it does not in time, and returns its exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return await self.ended(within_s=within_s)
        except AssertionError:
            return await self.kill()

    async def kill(self) -> int:
        """Kills the process at once."""
        self.signal(signal.SIGKILL)
        return await self.ended()

    def cpu_s(self) -> float:
        """The CPU time, user and system, that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """The resident memory of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
