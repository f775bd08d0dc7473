"""Supervises child processes: starts them, waits until they are ready, starts them again with back-off, ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

# The child asks the kernel (PR_SET_PDEATHSIG, on Linux) to be killed with its parent: one that is killed ends nobody.
# It asks in a program of its own, because code between fork and exec may deadlock under threads.
_LAUNCH: Final = (
    "import ctypes,os,signal,sys;"
    "sys.platform=='linux' and ctypes.CDLL(None).prctl(1,signal.SIGKILL);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)
_LINE_LIMIT_BYTES: Final = 64 * 1024
_TAIL_LINES: Final = 20
_POLL_S: Final = 0.02

log = logging.getLogger(__name__)

State = Literal["starting", "ready", "waiting", "ended"]


@dataclass(frozen=True, slots=True)
class BackOff:
    """Waits between starts: `first_s`, doubled up to `most_s`, from the beginning again after `steady_s` of running."""

    first_s: float = 0.1
    most_s: float = 10.0
    steady_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A program to keep running."""

    name: str
    argv: tuple[str, ...]
    """The program, found on the PATH unless it has a slash, and its arguments."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables beside our own."""
    ready: Callable[[], Awaitable[bool]] | None = None
    """Asked until it says yes; OSError counts as no. None: the child is ready as soon as it runs."""
    ready_within_s: float = 30.0
    stop_grace_s: float = 10.0
    """After SIGTERM it has so long before SIGKILL."""
    captured: bool = True
    """Whether its output goes to the supervisor's `on_line`; else it writes where we write."""
    back_off: BackOff = BackOff()


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """What happened to a child: it started, is ready, or ended with `exit_code` (negative: of that signal)."""

    name: str
    state: State
    pid: int | None = None
    exit_code: int | None = None
    next_start_s: float | None = None


class ChildError(Exception):
    """A child could not be started, or did not get ready; the message has its last words."""

    def __init__(self, name: str, reason: str, *, exit_code: int | None = None, output: str = "") -> None:
        super().__init__(f"{name}: {reason}" + (f"\n{output}" if output else ""))
        self.exit_code = exit_code


class Supervisor:
    """`async with Supervisor() as supervisor:` … `await supervisor.start(spec)`; leaving it ends every child."""

    def __init__(
        self,
        *,
        on_line: Callable[[str, str], None] = lambda name, line: None,
        on_event: Callable[[ChildEvent], None] = lambda event: None,
    ) -> None:
        self._on_line = on_line
        self._on_event = on_event
        self._children: dict[str, _Child] = {}

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._children)

    def pid(self, name: str) -> int | None:
        """Returns the id of the running process; None between two runs."""
        return self._children[name].pid

    def state(self, name: str) -> State:
        return self._children[name].state

    def restarts(self, name: str) -> int:
        return self._children[name].restarts

    async def start(self, spec: ChildSpec) -> None:
        """Starts a child and waits until it is ready; from then on it is started again whenever it ends.

        Raises ChildError when its first start fails: there is no such program, it ends, or it is not ready in time.
        """
        if spec.name in self._children:
            raise ValueError(f"there is a child called {spec.name} already")
        child = self._children[spec.name] = _Child(spec, self._on_line, self._on_event)
        try:
            await child.start()
        except BaseException:
            self._children.pop(spec.name, None)
            await child.stop()
            raise

    async def stop(self, *names: str) -> dict[str, int | None]:
        """Ends these children, or all, side by side; returns their exit codes (None: it was between two runs)."""
        chosen = [self._children.pop(name) for name in names or tuple(self._children)]
        codes = await asyncio.gather(*(child.stop() for child in chosen))
        return {child.spec.name: code for child, code in zip(chosen, codes, strict=True)}


@dataclass(slots=True, eq=False)
class _Child:
    spec: ChildSpec
    on_line: Callable[[str, str], None]
    on_event: Callable[[ChildEvent], None]
    state: State = "starting"
    restarts: int = 0
    _process: asyncio.subprocess.Process | None = None
    _keeping: asyncio.Task[None] | None = None
    _tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=_TAIL_LINES))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        program = shutil.which(self.spec.argv[0])
        if program is None:
            raise ChildError(self.spec.name, f"there is no program {self.spec.argv[0]}")
        argv = (os.path.abspath(program), *self.spec.argv[1:])  # noqa: ASYNC240  (touches no disk)
        process = await self._spawn(argv)
        reading = asyncio.create_task(self._read(process))
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._get_ready(process))
        try:
            await asyncio.wait({ended, ready}, timeout=self.spec.ready_within_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await asyncio.wait({reading}, timeout=1.0)
                reason = f"ended with exit code {ended.result()} before it was ready"
                raise ChildError(self.spec.name, reason, exit_code=ended.result(), output="\n".join(self._tail))
            if not ready.done():
                reason = f"not ready after {self.spec.ready_within_s} s"
                raise ChildError(self.spec.name, reason, output="\n".join(self._tail))
            ready.result()
        except BaseException:
            await _cancelled(ready, reading)
            raise
        finally:
            await _cancelled(ended)
        self._keeping = asyncio.create_task(self._keep(argv, process, reading), name=f"keeps {self.spec.name}")

    async def stop(self) -> int | None:
        if self._keeping is not None:
            await _cancelled(self._keeping)
        process, self._process = self._process, None
        self.state = "ended"
        if process is None:
            return None
        if process.returncode is None:
            await self._end(process)
        self.on_event(ChildEvent(self.spec.name, "ended", process.pid, process.returncode))
        return process.returncode

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        # Somebody must go on reading, or a child that writes much as it ends could not end.
        reading = asyncio.create_task(self._read(process))
        _signal(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self.spec.stop_grace_s)
        except TimeoutError:
            # The whole session, lest something that it started stays behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        finally:
            await asyncio.wait({reading}, timeout=0.2)
            await _cancelled(reading)

    async def _keep(
        self, argv: tuple[str, ...], process: asyncio.subprocess.Process, reading: asyncio.Task[None]
    ) -> None:
        back_off = self.spec.back_off
        wait_s, began_at = back_off.first_s, time.monotonic()
        getting_ready: asyncio.Task[None] | None = None
        try:
            while True:
                code = await process.wait()
                await _cancelled(*([getting_ready] if getting_ready else []))
                await asyncio.wait({reading}, timeout=1.0)
                await _cancelled(reading)
                self._process = None
                if time.monotonic() - began_at >= back_off.steady_s:
                    wait_s = back_off.first_s
                self.state = "waiting"
                self.on_event(ChildEvent(self.spec.name, "ended", process.pid, code, wait_s))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, back_off.most_s)
                self.restarts += 1
                process, began_at = await self._spawn_in_the_end(argv), time.monotonic()
                reading = asyncio.create_task(self._read(process))
                getting_ready = asyncio.create_task(self._get_ready(process))
        finally:
            await _cancelled(reading, *([getting_ready] if getting_ready else []))

    async def _spawn_in_the_end(self, argv: tuple[str, ...]) -> asyncio.subprocess.Process:
        while True:
            try:
                return await self._spawn(argv)
            except OSError as error:  # No memory or no process ids left: that passes.
                log.error("%s cannot be started: %s", self.spec.name, error)
                await asyncio.sleep(self.spec.back_off.most_s)

    async def _spawn(self, argv: tuple[str, ...]) -> asyncio.subprocess.Process:
        self.state = "starting"
        output = asyncio.subprocess.PIPE if self.spec.captured else None
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which ends its children in order.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT if self.spec.captured else None,
            env={**os.environ, **self.spec.env},
            limit=_LINE_LIMIT_BYTES,
            start_new_session=True,
        )
        self._process = process
        self.on_event(ChildEvent(self.spec.name, "starting", process.pid))
        return process

    async def _get_ready(self, process: asyncio.subprocess.Process) -> None:
        while self.spec.ready is not None:
            with contextlib.suppress(OSError):
                if await self.spec.ready():
                    break
            await asyncio.sleep(_POLL_S)
        if self._process is process:
            self.state = "ready"
            self.on_event(ChildEvent(self.spec.name, "ready", process.pid))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while line := await _line(process.stdout):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self._tail.append(text)
            self.on_line(self.spec.name, text)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Returns the next line; of one that is too long, its parts. Empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as fault:
        return fault.partial
    except asyncio.LimitOverrunError as fault:
        return await stream.readexactly(fault.consumed)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
