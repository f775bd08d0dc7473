"""One Redis server: keeps a connection to it, and itself connected. While it is away, nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import ssl
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import hiredis

from dragoman.batch import Batch
from dragoman.metrics import Distribution
from ratelimit_service.algorithms.registry import scripts
from ratelimit_service.algorithms.ticks import micros
from ratelimit_service.checks import Check
from ratelimit_service.stores.redis_commands import command, eval_whole, evalsha, expire, first, incrby, key_at
from ratelimit_service.stores.redis_connection import Question, RedisConnection, Resent, lose
from ratelimit_service.stores.redis_dial import FAULTS, RefusedError, accepted, dial, error_kind, must_be_primary
from ratelimit_service.stores.redis_url import RedisTarget

_log = logging.getLogger(__name__)

_PING = command("PING")
_ROLE = command("ROLE")
_ASKING = command("ASKING")
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 1.0
_GIVE_UP_S = 1.0
"""A server that answers nothing for so long is connected to anew."""
_IDLE_S = 5.0
"""A server that was asked nothing for so long is asked whether it lives: the other end may be gone without a word."""
_LOG_EVERY_S = 10.0
_STABLE_TIMEOUTS = 5
"""A server that stalls again within so many time-outs flaps: it has to answer in time more often to be trusted."""
_MOST_ANSWERS = 32
# With these the server can do no more for us on this connection: it is loading, a replica now, or wants a login.
_FATAL = frozenset({"LOADING", "READONLY", "MASTERDOWN", "NOAUTH"})


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What all nodes of a store have in common."""

    timeout_s: float = 0.02
    max_pending: int = 16_384
    server_time: bool = True
    """Whether the server's clock counts in scripts, or ours."""
    batch: Batch | None = None
    generations: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers the connections: counters note on which one their expiry was sent."""


class RedisNode:
    """`start` returns at once, whether or not the server is there. `find` says, for each connection, where it is.

    `redirect` may take an error over, and the question with it: it is told the node, the question, and what was said.
    `went` is told when the server is out of reach.
    """

    expiring = True
    """Whether counters of windows have to be told when to go."""

    def __init__(
        self,
        name: str,
        find: Callable[[], Awaitable[RedisTarget]],
        options: NodeOptions,
        *,
        primary_only: bool = False,
        redirect: Callable[[RedisNode, Question | Resent, str], bool] | None = None,
        went: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.title = f"Redis at {name}"
        """What it is called in logs."""
        self._find = find
        self._options = options
        self._primary_only = primary_only
        self._redirect = redirect
        self._went = went
        self.connection: RedisConnection | None = None
        self.target: RedisTarget | None = None
        """The server that it is, or was last, connected to."""
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._waiting: deque[Resent] = deque()
        self._needed = 1
        self._recovered_at = 0.0
        self._connecting = False
        self._loads_scripts = True
        self._outage: float | None = None
        self._outage_told = False
        self._told_reasons: deque[str] = deque(maxlen=8)
        self._unanswered_before = 0
        self._told: dict[str, float] = {}
        self.settled = asyncio.Event()
        """Set once it is known whether the server answers."""
        self.unanswered = 0
        """How many checks were not answered, for whatever reason."""
        self.errors: Tally[str] = Tally()
        """What went wrong, by kind: an error code of Redis, or `timeout`, `unreachable`, `full` (checks)."""
        self.latency = Distribution()

    @property
    def available(self) -> bool:
        """Whether it can be asked at present."""
        return self.connection is not None and self.connection.usable

    @property
    def lack(self) -> str | None:
        """What is missing, in words: it is away, or has refused checks of late."""
        if not self.available:
            return "cannot be asked"
        since = time.monotonic() - _LOG_EVERY_S
        kinds = sorted(kind for kind, at in self._told.items() if at > since and kind.isupper() and kind not in _FATAL)
        return f"has refused checks of late: {', '.join(kinds)}" if kinds else None

    def start(self) -> None:
        """Begins to connect."""
        self._connecting = True
        self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        """Ends the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.connection is not None:
            self.connection.abort("closed by us")
        self._connecting = False
        self._lose_waiting()

    def leave(self, reason: str) -> None:
        """Gives the present connection up, and has the server found anew, at once."""
        self._wake.set()
        if self.connection is not None:
            self.connection.abort(reason)

    def ask(self, connection: RedisConnection, check: Check, now: float, question: Question) -> None:
        """Sends a check on its connection, with all others of this turn of the event loop."""
        counter, limit = check.counter, check.limit
        if limit.script is not None:
            connection.ask(evalsha(check, self._now_us(now)), question)
            return
        second = int(now)
        start = second - second % limit.seconds
        if counter.sent_expiry == connection.generation and counter.window == start:
            connection.ask(incrby(check, start), question)
        else:
            connection.ask_first(first(check, start), question)
            counter.sent_expiry = connection.generation

    def ask_again(self, resent: Resent) -> None:
        """Sends a question once more; it waits for a server that is being connected to for the first time."""
        connection = self.connection
        if connection is None or not connection.usable:
            if self._connecting and connection is None and len(self._waiting) < self._options.max_pending:
                self._waiting.append(resent)
            else:
                resent.lose()
            return
        flight, _, check = resent.question
        if resent.asking:
            connection.tell(_ASKING)
        if check.limit.script is not None:
            encode = eval_whole if resent.whole else evalsha
            connection.ask_again(encode(check, self._now_us(flight.asked_at)), resent)
            return
        key = key_at(check, flight.asked_at)
        connection.ask_again(command("INCRBY", key, check.hits), resent)
        # Sent also where it was sent before: that may have been to a server that did not have the key.
        if resent.asking:
            connection.tell(_ASKING)
        connection.tell(expire(check, key))

    def resent(self, question: Question | Resent) -> Resent:
        """Returns the question as one that is asked once more."""
        if isinstance(question, tuple):
            question = Resent(question, timeout_s=self._options.timeout_s, on_lost=self._count_lost)
        question.tries += 1
        return question

    def refuse(self, question: Question | Resent, kind: str, message: str) -> None:
        """Counts a check as not answered, because of what the server said."""
        self.errors[kind] += 1
        self._tell_after_pause(kind, f"{self.title} says: {message}")
        if isinstance(question, Resent):
            question.lose()
            return
        self.unanswered += 1
        lose(question[0])

    def pass_over(self, checks: int) -> None:
        """Counts checks that are not asked, because nobody would answer, or not in time."""
        self.unanswered += checks
        if self.connection is not None and self.connection.full:
            self.errors["full"] += checks
            self._tell_after_pause("full", f"{self.title} does not answer as fast as it is asked")

    def _now_us(self, now: float) -> int | None:
        return None if self._options.server_time else micros(now)

    def _count_lost(self) -> None:
        self.unanswered += 1

    def _on_error(self, question: Question | Resent, message: str) -> None:
        kind = error_kind(message)
        if self._redirect is not None and self._redirect(self, question, message):
            return
        if kind == "NOSCRIPT" and not (isinstance(question, Resent) and question.whole):
            resent = self.resent(question)
            resent.whole = True
            self.ask_again(resent)
            return
        self.refuse(question, kind, message)
        # A replica would let us in again and again, to refuse what is asked next.
        self._primary_only = self._primary_only or kind == "READONLY"
        if kind in _FATAL and self.connection is not None:
            self.connection.abort(message)

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            self._wake.clear()
            try:
                connection = await self._connect()
            except FAULTS as error:
                failures += 1
                self._not_let_in(error)
            else:
                self.connection = connection
                self._up()
                reason = await self._watch(connection)
                self.connection = None
                self._collect(connection)
                self._down(reason)
                # A server that accepts us and then does nothing is not tried in a tight loop.
                failures = failures + 1 if time.monotonic() - started < _GIVE_UP_S else 0
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures, 10)) if failures else 0.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s * random.uniform(0.5, 1.0)):  # noqa: S311
                    await self._wake.wait()

    async def _connect(self) -> RedisConnection:
        options = self._options
        target = self.target = await self._find()
        connection = RedisConnection(
            generation=next(options.generations),
            timeout_s=options.timeout_s,
            max_pending=options.max_pending,
            on_error=self._on_error,
            expiring=self.expiring,
            batch=options.batch,
        )
        connection.observe = self.latency.observe
        role = (_ROLE,) if self._primary_only else ()
        loads = [command("SCRIPT", "LOAD", script.body) for script in scripts()] if self._loads_scripts else ()
        try:
            ping, *replies = await dial(target, connection, _PING, *role, *loads)
        except RefusedError:
            # Some proxies hang up on commands that they do not know.
            self._loads_scripts = not self._loads_scripts
            raise
        try:
            accepted((ping,))
            if role:
                must_be_primary(target, replies.pop(0))
        except RefusedError as error:
            connection.abort(str(error))
            raise
        # Fixed windows have no use for scripts; what else is asked meets the same error.
        for error in [reply for reply in replies if isinstance(reply, hiredis.ReplyError)][:1]:
            self._tell("scripts", logging.WARNING, f"{self.title} takes no scripts: {error}")
        return connection

    async def _watch(self, connection: RedisConnection) -> str:
        """Returns why the connection ended. On the way, finds out after each stall whether the server lives."""
        while not connection.closed.done():
            stalled = asyncio.ensure_future(connection.stalled.wait())
            waiting = (stalled, connection.closed)
            try:
                await asyncio.wait(waiting, timeout=_IDLE_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stalled.cancel()
            if connection.closed.done():
                break
            if connection.stalled.is_set():
                await self._probe(connection)
            elif time.monotonic() - connection.heard_at > _IDLE_S:
                await self._ping(connection)
        return connection.closed.result()

    async def _probe(self, connection: RedisConnection) -> None:
        timeout_s = self._options.timeout_s
        flaps = time.monotonic() - self._recovered_at < _STABLE_TIMEOUTS * timeout_s
        self._needed = min(self._needed * 2, _MOST_ANSWERS) if flaps else 1
        answers = 0
        while not connection.closed.done():
            # Each time: an outage that followed another too soon to be told is told when it lasts.
            self._down(f"no answer within {timeout_s * 1000:.0f} ms", kind="timeout")
            took_s = await self._ping(connection)
            answers = answers + 1 if took_s <= timeout_s else 0
            if answers >= self._needed:
                self._recovered_at = time.monotonic()
                connection.recovered()
                self._collect(connection)
                self._up()
                return
            await asyncio.sleep(timeout_s)

    async def _ping(self, connection: RedisConnection) -> float:
        """Returns the seconds until the answer; the connection is given up if there is none."""
        asked = time.monotonic()
        reply = connection.command(_PING)
        await asyncio.wait((reply, connection.closed), timeout=_GIVE_UP_S, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            connection.abort(f"no answer within {_GIVE_UP_S:.0f} s")
        return time.monotonic() - asked

    def _collect(self, connection: RedisConnection) -> None:
        self.unanswered += connection.given_up
        connection.given_up = 0

    def _lose_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().lose()

    def _not_let_in(self, error: Exception) -> None:
        reason = str(error) or "no answer"
        self._down(reason)
        # Why one that was lost does not take us back is another matter than why it was lost.
        if (
            reason not in self._told_reasons
            and isinstance(error, RefusedError | ssl.SSLError)
            and self._tell("refused", logging.WARNING, f"{self.title} does not let us in: {reason}")
        ):
            self._told_reasons.append(reason)

    def _down(self, reason: str, *, kind: str = "unreachable") -> None:
        self._connecting = False
        self.settled.set()
        self._lose_waiting()
        if self._outage is None:
            self.errors[kind] += 1
            self._outage = time.monotonic()
            self._outage_told = False
            self._told_reasons.clear()
            self._unanswered_before = self.unanswered
            if self._went is not None:
                self._went()
        if not self._outage_told:
            message = f"{self.title} is out of reach: {reason.rstrip('.')}. Limits follow on_store_error"
            self._outage_told = self._tell("", logging.WARNING, message)
            if self._outage_told:
                self._told_reasons.append(reason)

    def _up(self) -> None:
        self._connecting = False
        self.settled.set()
        while self._waiting and self.available:
            resent = self._waiting.popleft()
            if resent.open:
                self.ask_again(resent)
        self._lose_waiting()
        if self._outage is None:
            return
        lasted_s = time.monotonic() - self._outage
        self._outage = None
        if self._outage_told:
            missed = self.unanswered - self._unanswered_before
            # As loud as the beginning: who is told of an outage is told of its end.
            _log.warning("%s answers again after %.2f s; %d checks went without", self.title, lasted_s, missed)

    def _tell_after_pause(self, kind: str, message: str) -> None:
        # Once, until there was none of this kind for a while.
        self._tell(kind, logging.WARNING, message)
        self._told[kind] = time.monotonic()

    def _tell(self, kind: str, level: int, message: str) -> bool:
        # Not once a request, and not once a flap either.
        now = time.monotonic()
        if now - self._told.get(kind, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return False
        self._told[kind] = now
        _log.log(level, "%s", message)
        return True
