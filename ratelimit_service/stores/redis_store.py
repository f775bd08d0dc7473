"""Counters in one Redis server. While it is out of reach every question is answered at once: not known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter as Tally
from collections.abc import Sequence

import hiredis

from dragoman.metrics import Distribution
from ratelimit_service.algorithms.registry import scripts
from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_commands import command, eval_whole, evalsha, expire, incrby
from ratelimit_service.stores.redis_connection import Question, RedisConnection
from ratelimit_service.stores.redis_url import RedisTarget

_log = logging.getLogger(__name__)

_PING = command("PING")
_CONNECT_S = 1.0
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 1.0
_GIVE_UP_S = 1.0
"""A server that answers nothing for so long is connected to anew."""
_LOG_EVERY_S = 10.0
# With these the server can do no more for us on this connection: it is loading, a replica now, or wants a login.
_FATAL = frozenset({"LOADING", "READONLY", "MASTERDOWN", "NOAUTH"})


class RedisStore:
    """Keeps one connection, and itself connected; `start` returns at once, whether or not the server is there."""

    def __init__(
        self,
        target: RedisTarget,
        *,
        timeout_s: float = 0.02,
        max_pending: int = 16_384,
        server_time: bool = True,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._max_pending = max_pending
        self._server_time = server_time
        self._connection: RedisConnection | None = None
        self._generation = 0
        self._task: asyncio.Task[None] | None = None
        self._outage: float | None = None
        self._outage_told = False
        self._unanswered_before = 0
        self._told: dict[str, float] = {}
        self.unanswered = 0
        """How many checks were not answered, for whatever reason."""
        self.errors: Tally[str] = Tally()
        """What went wrong, by kind: an error code of Redis, or `timeout`, `unreachable`."""
        self.latency = Distribution()

    @property
    def available(self) -> bool:
        """Whether it can be asked at present."""
        return self._connection is not None and self._connection.usable

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        """Ends the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.abort("closed by us")

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Sends the checks with all others of this turn of the event loop; the flight is settled by their replies."""
        connection = self._connection
        flight.replies = [None] * len(checks)
        if connection is None or not connection.usable:
            self.unanswered += len(checks)
            flight.settle()
            return
        flight.left = len(checks)
        flight.asked_at = now
        flight.sent_at = time.monotonic()
        second = int(now)
        for index, check in enumerate(checks):
            counter, limit = check.counter, check.limit
            if limit.script is not None:
                connection.ask(evalsha(check, self._tick(check, now)), (flight, index, check))
                continue
            connection.ask(incrby(check, second - second % limit.seconds), (flight, index, check))
            if counter.sent_expiry != connection.generation:
                counter.sent_expiry = connection.generation
                connection.tell(expire(counter))

    def _tick(self, check: Check, now: float) -> int | None:
        return None if self._server_time else int(now * check.limit.tps)

    def _on_error(self, question: Question, message: str) -> None:
        flight, _, check = question
        connection = self._connection
        kind = message.partition(" ")[0]
        if kind == "NOSCRIPT" and connection is not None:
            connection.ask(eval_whole(check, self._tick(check, flight.asked_at)), question)
            return
        self.unanswered += 1
        kind = kind if kind.isupper() and len(kind) < 32 else "ERR"
        self.errors[kind] += 1
        self._tell(kind, logging.WARNING, f"Redis at {self._target} says: {message}")
        flight.left -= 1
        if not flight.left:
            flight.settle()
        if kind in _FATAL and connection is not None:
            connection.abort(message)

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                connection = await self._connect()
            except (OSError, TimeoutError, _RefusedError) as error:
                failures += 1
                self._down(str(error) or "no answer")
            else:
                self._connection = connection
                self._up()
                reason = await self._watch(connection)
                self._connection = None
                self._collect(connection)
                self._down(reason)
                # A server that accepts us and then does nothing is not tried in a tight loop.
                failures = failures + 1 if time.monotonic() - started < _GIVE_UP_S else 0
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures, 10)) if failures else 0.0
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311

    async def _connect(self) -> RedisConnection:
        self._generation += 1
        loop = asyncio.get_running_loop()
        target = self._target
        connection = RedisConnection(
            generation=self._generation,
            timeout_s=self._timeout_s,
            max_pending=self._max_pending,
            on_error=self._on_error,
        )
        connection.observe = self.latency.observe
        try:
            async with asyncio.timeout(_CONNECT_S):
                if target.path:
                    await loop.create_unix_connection(lambda: connection, target.path, ssl=target.tls)
                else:
                    await loop.create_connection(lambda: connection, target.host, target.port, ssl=target.tls)
                for step in self._handshake():
                    reply = await connection.command(step)
                    if isinstance(reply, hiredis.ReplyError):
                        raise _RefusedError(str(reply))
                    if reply is None:
                        raise _RefusedError(await connection.closed)
        except BaseException:
            connection.abort("handshake failed")
            raise
        return connection

    def _handshake(self) -> list[bytes]:
        target = self._target
        steps: list[bytes] = []
        if target.password:
            user = (target.username,) if target.username else ()
            steps.append(command("AUTH", *user, target.password))
        if target.db:
            steps.append(command("SELECT", target.db))
        return [*steps, *(command("SCRIPT", "LOAD", script.body) for script in scripts()), _PING]

    async def _watch(self, connection: RedisConnection) -> str:
        """Returns why the connection ended. On the way, finds out after each stall whether the server lives."""
        while not connection.closed.done():
            stalled = asyncio.ensure_future(connection.stalled.wait())
            await asyncio.wait((stalled, connection.closed), return_when=asyncio.FIRST_COMPLETED)
            stalled.cancel()
            if connection.stalled.is_set() and not connection.closed.done():
                self._down(f"no answer within {self._timeout_s * 1000:.0f} ms", kind="timeout")
                await self._probe(connection)
        return connection.closed.result()

    async def _probe(self, connection: RedisConnection) -> None:
        while not connection.closed.done():
            asked = time.monotonic()
            reply = connection.command(_PING)
            await asyncio.wait((reply, connection.closed), timeout=_GIVE_UP_S, return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                connection.abort(f"no answer within {_GIVE_UP_S:.0f} s")
            elif time.monotonic() - asked <= self._timeout_s:
                connection.stalled.clear()
                self._collect(connection)
                self._up()
                return
            else:
                await asyncio.sleep(self._timeout_s)

    def _collect(self, connection: RedisConnection) -> None:
        self.unanswered += connection.given_up
        connection.given_up = 0

    def _down(self, reason: str, *, kind: str = "unreachable") -> None:
        if self._outage is None:
            self.errors[kind] += 1
            self._outage = time.monotonic()
            self._outage_told = False
            self._unanswered_before = self.unanswered
        if not self._outage_told:
            message = f"Redis at {self._target} is out of reach: {reason}. Limits follow on_store_error"
            self._outage_told = self._tell("", logging.WARNING, message)

    def _up(self) -> None:
        if self._outage is None:
            return
        lasted_s = time.monotonic() - self._outage
        self._outage = None
        if self._outage_told:
            missed = self.unanswered - self._unanswered_before
            _log.info("Redis at %s answers again after %.2f s; %d checks went without", self._target, lasted_s, missed)

    def _tell(self, kind: str, level: int, message: str) -> bool:
        # Not once a request, and not once a flap either.
        now = time.monotonic()
        if now - self._told.get(kind, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return False
        self._told[kind] = now
        _log.log(level, "%s", message)
        return True


class _RefusedError(Exception):
    """The server does not let us in, or not now."""
