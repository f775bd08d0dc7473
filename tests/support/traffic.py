"""A steady stream of requests that notes what happened to each: the judge of "no request fails"."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from types import TracebackType

from tests.support.http import Connection, HeaderInput, Response
from tests.support.waiting import until

_CATCHES_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """What a probe asks for, and which status means success."""

    path: str = "/"
    host: str = "example.com"
    method: str = "GET"
    headers: HeaderInput = ()
    expect: frozenset[int] = frozenset({200})


@dataclass(frozen=True, slots=True)
class Result:
    """One request: when it was sent (monotonic seconds), how long it took, what came (None: a broken connection)."""

    target: Target
    sent_at: float
    took_s: float
    fresh: bool
    response: Response | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.response is not None and self.response.status in self.target.expect

    def __str__(self) -> str:
        came = self.error or (f"{self.response.status} {self.response.text[:200]!r}" if self.response else "nothing")
        kind = "new connection" if self.fresh else "kept-alive connection"
        return f"{self.target.method} {self.target.host}{self.target.path} over a {kind}: {came} ({self.took_s:.3f} s)"


@dataclass
class Probe:
    """`async with Probe(port, [Target("/a")]) as probe`: `rate_per_s` requests a second until the block ends.

    Most go over `connections` that are kept alive, which a probe opens once and only replaces when the peer announced
    (`connection: close`) that it ends them; every `fresh_every`-th goes over a new connection.
    """

    port: int
    targets: Sequence[Target] = (Target(),)
    rate_per_s: float = 240.0
    connections: int = 4
    fresh_every: int = 4
    within_s: float = 5.0
    address: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    results: list[Result] = field(default_factory=list[Result])
    _idle: list[Connection] = field(default_factory=list[Connection])
    _under_way: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _loop: asyncio.Task[None] | None = None
    _began_at: float = 0.0
    _due_at: float = 0.0
    _ends_at: float = float("inf")

    async def __aenter__(self) -> Probe:
        self._began_at = time.monotonic()
        self._loop = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Sends what was due until now and no more, and waits for what is under way."""
        if self._loop is None:
            return
        self._ends_at = time.monotonic()
        if self._due_at < self._ends_at:
            # A sender that was late for a moment has not sent too little; one that cannot keep up has.
            await asyncio.wait((self._loop,), timeout=_CATCHES_UP_S)
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        self._loop = None
        await asyncio.gather(*self._under_way)
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    @property
    def failed(self) -> list[Result]:
        """The requests that did not get what they were to get."""
        return [result for result in self.results if not result.ok]

    @property
    def reached_per_s(self) -> float:
        """The requests a second that were answered or failed, over the probe's whole life so far."""
        return len(self.results) / max(min(self._ends_at, time.monotonic()) - self._began_at, 1e-9)

    def assert_none_failed(self, *, at_least_per_s: float = 200.0) -> None:
        """Raises AssertionError when a request failed, or when fewer were sent than would make that mean something."""
        failed = self.failed
        shown = "\n".join(f"  +{r.sent_at - self._began_at:.3f} s  {r}" for r in failed[:10])
        assert not failed, f"{len(failed)} of {len(self.results)} requests failed:\n{shown}"
        assert self.reached_per_s >= at_least_per_s, f"only {self.reached_per_s:.0f} requests/s were sent"

    async def sees(
        self, predicate: Callable[[Result], bool], *, what: str = "a change", within_s: float = 30.0
    ) -> Result:
        """Waits for the first result, from now on, of which `predicate` holds, and returns it."""
        start = len(self.results)

        def find() -> Result | None:
            return next((result for result in self.results[start:] if predicate(result)), None)

        found = await until(find, what=what, within_s=within_s, detail=self._last)
        assert found is not None
        return found

    def first(self, predicate: Callable[[Result], bool], *, after: float = 0.0) -> Result | None:
        """Returns the first result sent after a moment of which `predicate` holds: when did an answer change?"""
        return next((r for r in self.results if r.sent_at >= after and predicate(r)), None)

    async def _send_all(self) -> None:
        # An open loop: slow answers do not slow the sender, and a late wake-up is made up for at once.
        self._due_at = self._began_at
        for number, target in enumerate(cycle(self.targets)):
            await asyncio.sleep(max(0.0, self._due_at - time.monotonic()))
            if self._due_at > self._ends_at:
                return
            fresh = self.fresh_every > 0 and number % self.fresh_every == 0
            task = asyncio.create_task(self._send(target, fresh))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            self._due_at += 1 / self.rate_per_s
            while len(self._under_way) > 500:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    async def _send(self, target: Target, fresh: bool) -> None:
        sent_at = time.monotonic()
        connection: Connection | None = None
        response, error = None, ""
        kept = False
        try:
            connection = None if fresh else self._take()
            kept = connection is not None
            connection = connection or await self._connect(target)
            response = await connection.request(
                target.path,
                method=target.method,
                host=target.host,
                headers=target.headers,
                within_s=self.within_s,
            )
        except (OSError, TimeoutError, ValueError) as fault:
            error = f"{type(fault).__name__}: {fault}"
        self.results.append(Result(target, sent_at, time.monotonic() - sent_at, not kept, response, error))
        self._give_back(connection, fresh)

    async def _connect(self, target: Target) -> Connection:
        name = target.host.partition(":")[0]
        async with asyncio.timeout(self.within_s):
            return await Connection.to(self.port, address=self.address, tls=self.tls, sni=name)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop(0)
            if connection.open:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection | None, fresh: bool) -> None:
        if connection is None:
            return
        if fresh or not connection.open or len(self._idle) >= self.connections:
            connection.close()
        else:
            self._idle.append(connection)

    def _last(self) -> str:
        return "\n".join(f"  {result}" for result in self.results[-5:])
