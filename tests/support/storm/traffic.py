"""Steady requests over every kind of connection, each judged; and waiting until a change is in effect everywhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Final

from tests.support.storm.doors import Doors, Protocol, answer_of
from tests.support.storm.envoys import Envoys
from tests.support.storm.events import Ring
from tests.support.storm.judge import BROKEN, REFUSED, Ask, Door, Heard, Target
from tests.support.storm.lines import Line

# Door, protocol, over a new connection; in turns. A handshake of TLS costs as much as many requests.
_LANES: Final[tuple[tuple[Door, Protocol, bool], ...]] = (
    ("http", "HTTP/1.1", False),
    ("http", "HTTP/1.1", True),
    ("https", "HTTP/2", False),
    ("http", "HTTP/2", False),
    ("https", "HTTP/1.1", False),
    ("http", "HTTP/1.1", True),
    ("http", "HTTP/1.1", False),
    ("https", "HTTP/2", False),
    ("http", "HTTP/2", False),
    ("https", "HTTP/1.1", True),
)
_AFTERGLOW_S: Final = 1.0
_KEPT_PER_ENVOY: Final = 2
_WORKERS_FOLLOW_S: Final = 0.5
_MOST_UNDER_WAY: Final = 500
_TOLD: Final = 40


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was answered as it must not be, and what was done at that moment."""

    target: str
    heard: Heard
    fault: str
    at: str
    events: tuple[str, ...]

    def __str__(self) -> str:
        around = "\n".join(f"        {event}" for event in self.events)
        return f"{self.at}  {self.target}: {self.heard}\n      {self.fault}\n{around}"


@dataclass(slots=True)
class Traffic:
    """`async with Traffic(...) as traffic`: asks for its targets until the block ends.

    Every second request is for what changes just now, where anything does.
    """

    doors: Doors
    envoys: Envoys
    ring: Ring
    rate_per_s: float = 240.0
    within_s: float = 5.0
    targets: list[Target] = field(default_factory=list[Target])
    answers: Counter[str] = field(default_factory=Counter[str])
    failures: list[Failure] = field(default_factory=list[Failure])
    failed: int = 0
    sent: int = 0
    times_s: list[float] = field(default_factory=list[float])
    _hot: dict[Target, float] = field(default_factory=dict[Target, float])
    _kept: dict[tuple[Door, Protocol, str], list[Line]] = field(
        default_factory=dict[tuple[Door, Protocol, str], "list[Line]"]
    )
    _control: dict[tuple[Door, str], Line] = field(default_factory=dict[tuple[Door, str], "Line"])
    _locks: dict[tuple[Door, str], asyncio.Lock] = field(default_factory=dict[tuple[Door, str], asyncio.Lock])
    _under_way: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _loop: asyncio.Task[None] | None = None
    _took_s: float = 0.0
    _began_at: float = 0.0
    _turn: int = 0

    async def __aenter__(self) -> Traffic:
        self.go()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pause()
        for lines in (*self._kept.values(), self._control.values()):
            for line in lines:
                line.close()

    def go(self) -> None:
        """Begins to send, or goes on with it."""
        self._began_at = time.monotonic()
        self._loop = asyncio.create_task(self._send_all())

    async def pause(self) -> None:
        """Sends no more and waits for what is under way."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        self._loop = None
        self._took_s += time.monotonic() - self._began_at
        await asyncio.gather(*self._under_way)

    @property
    def reached_per_s(self) -> float:
        """The requests a second that were sent."""
        running = time.monotonic() - self._began_at if self._loop is not None else 0.0
        return len(self.times_s) / max(self._took_s + running, 1e-9)

    def p99_ms(self, since: int = 0, until: int | None = None) -> float:
        """The 99th percentile of the times that answers took, of those from the `since`-th on."""
        times = sorted(self.times_s[since:until]) or [0.0]
        return times[int(len(times) * 0.99)] * 1000

    def watch(self, *targets: Target) -> None:
        """Asks for these too, from now on."""
        self.targets.extend(targets)

    def forget(self, *targets: Target) -> None:
        """Asks for these no more, but for a moment in which an old answer may yet come back."""
        for target in targets:
            if target in self.targets:
                self.targets.remove(target)

    def heat(self, targets: Iterable[Target], *, cooling: bool = False) -> None:
        """Asks for these more often: while they change, and for a moment after."""
        until = time.monotonic() + _AFTERGLOW_S if cooling else float("inf")
        self._hot.update(dict.fromkeys(targets, until))

    def report(self, most: int = 10) -> str:
        """What failed, in words."""
        shown = "\n".join(str(failure) for failure in self.failures[:most])
        return f"{self.failed} of {self.sent} requests failed:\n{shown}"

    # A change in effect

    async def confirm(self, targets: Iterable[Target], *, within_s: float = 30.0) -> None:
        """Waits until every Envoy answers, by every door, as after the change; then it is made out as done."""
        targets = list(targets)
        try:
            await asyncio.gather(*(self._confirm(target, within_s) for target in targets))
        finally:
            for target in targets:
                target.has_moved()
            self.heat(targets, cooling=True)

    def settle(self) -> None:
        """Says that every Envoy has taken in all changes, as is known in another way; its workers follow soon."""
        moving = [target for target in self._hot if target.then is not None]
        for target in moving:
            target.has_moved(grace_s=_WORKERS_FOLLOW_S)
        self.heat(moving, cooling=True)

    async def _confirm(self, target: Target, within_s: float) -> None:
        if target.ask.apart:
            await self._confirm_apart(target, within_s)
            return
        for door in target.doors:
            for envoy in self.envoys.pids:
                await self._asked_until(target, door, envoy, within_s)

    async def _asked_until(self, target: Target, door: Door, envoy: str, within_s: float) -> None:
        deadline, pause_s = time.monotonic() + within_s, 0.002
        while True:
            heard = await self._over_control(target, door, envoy)
            if heard.answer in target.proof:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{target.name} by {door} of {envoy} still says {heard}, not {set(target.proof)}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.05)

    async def _confirm_apart(self, target: Target, within_s: float) -> None:
        deadline, pause_s = time.monotonic() + within_s, 0.002
        missing = set(self.envoys.pids)
        while missing:
            heard = await self._ask(target, target.doors[0], "HTTP/1.1", None)
            if heard.answer in target.proof:
                if heard.answer == REFUSED:
                    return
                missing.discard(heard.envoy)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{target.name} of {missing} still says {heard}, not {set(target.proof)}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.05)

    async def _over_control(self, target: Target, door: Door, envoy: str) -> Heard:
        place = door, envoy
        async with self._locks.setdefault(place, asyncio.Lock()):
            line = self._control.get(place)
            if line is None or not line.open:
                line = self._control[place] = await self._line_to(door, envoy)
            return await self._ask(target, door, "HTTP/1.1", line)

    async def _line_to(self, door: Door, envoy: str) -> Line:
        """Opens connections until one is with this Envoy."""
        hello = Ask("/", "nobody.storm.example")
        for _ in range(64):
            line = await self.doors.connect(door)
            await line.ask(hello, within_s=self.within_s)
            line.envoy = self.envoys.holding(self.doors.port(door), line.local_port)
            if line.envoy == envoy:
                return line
            line.close()
        raise TimeoutError(f"no connection to {door} of {envoy} can be had")

    # The steady stream

    async def _send_all(self) -> None:
        # An open loop: slow answers do not slow the sender, and a late wake-up is made up for at once.
        due = time.monotonic()
        for number in count():
            target = self._next(number)
            if target is not None:
                task = asyncio.create_task(self._send(target, number))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            due += 1 / self.rate_per_s
            while len(self._under_way) > _MOST_UNDER_WAY:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _next(self, number: int) -> Target | None:
        if number % 2 and self._hot:
            target, until = next(iter(self._hot.items()))
            del self._hot[target]
            if until > time.monotonic():
                self._hot[target] = until  # At the end of the queue.
                return target
        if not self.targets:
            return None
        self._turn += 1
        return self.targets[self._turn % len(self.targets)]

    async def _send(self, target: Target, number: int) -> None:
        door, protocol, fresh = _LANES[number // 2 % len(_LANES)]
        if door not in target.doors:
            door = target.doors[0]
        line = None if fresh or target.ask.apart else self._take(door, protocol)
        heard = await self._ask(target, door, protocol, line, keep=not (fresh or target.ask.apart))
        self.times_s.append(heard.came_at - heard.sent_at)

    def _take(self, door: Door, protocol: Protocol) -> Line | None:
        """Returns an open connection, of the Envoys in turns; None where there are none, or few."""
        pools = [self._kept.setdefault((door, protocol, envoy), []) for envoy in self.envoys.pids]
        self._turn += 1
        pool = pools[self._turn % len(pools)]
        while pool:
            line = pool.pop(0)
            if line.open:
                if protocol == "HTTP/2":
                    pool.append(line)
                return line
            line.close()
        return None

    async def _ask(
        self,
        target: Target,
        door: Door,
        protocol: Protocol,
        line: Line | None,
        *,
        keep: bool = False,
    ) -> Heard:
        ask, fresh, detail = target.ask, line is None, ""
        sent_at = time.monotonic()
        try:
            if line is None:
                async with asyncio.timeout(self.within_s):
                    line = await self.doors.connect(door, protocol, ask)
            reply = await line.ask(ask, within_s=self.within_s)
            answer = answer_of(ask, reply)
            if reply.status != 200:
                detail = reply.body[:160].decode("utf-8", "replace")
        except ConnectionRefusedError:
            answer = REFUSED
        except (OSError, TimeoutError, ValueError) as fault:
            answer, detail = BROKEN, f"{type(fault).__name__}: {fault}"
        came_at = time.monotonic()
        if line is not None and not line.envoy and (keep or target.then is not None or answer not in target.now):
            line.envoy = self.envoys.holding(self.doors.port(door, ask), line.local_port)
        heard = Heard(answer, sent_at, came_at, door, line.envoy if line is not None else "", fresh, protocol, detail)
        self._judge(target, heard)
        if line is not None and (keep or fresh):
            self._give_back(line, door, protocol, keep)
        return heard

    def _judge(self, target: Target, heard: Heard) -> None:
        self.sent += 1
        self.answers[heard.answer.partition(" ")[0]] += 1
        fault = target.judge(heard)
        if fault is None:
            return
        self.failed += 1
        if len(self.failures) < _TOLD:
            around = tuple(self.ring.around(heard.sent_at))
            at = self.ring.since_start(heard.sent_at)
            self.failures.append(Failure(target.name, heard, fault, at, around))

    def _give_back(self, line: Line, door: Door, protocol: Protocol, keep: bool) -> None:
        pool = self._kept.setdefault((door, protocol, line.envoy), [])
        if any(line is each for each in pool):
            return
        if keep and line.envoy and line.open and len(pool) < _KEPT_PER_ENVOY:
            pool.append(line)
        else:
            line.close()
