"""Memory of this worker in which the others of its machine count too, over a Unix socket.

It understands `TAKE rule key hits [caller patience flags]`, `DECIDE` with such words for each of several checks,
`RULE body`, and, as Redis would, `PING`; it agrees to all else, so that
a client of Redis can ask it. A rule that it has not been told is answered NOSCRIPT.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import hiredis

from ratelimit_service.algorithms.together import decide
from ratelimit_service.checks import Check, Counter
from ratelimit_service.memo import Memo
from ratelimit_service.stores import shared_rule
from ratelimit_service.stores.memory import MemoryStore

_log = logging.getLogger(__name__)

MAX_PEERS = 256
WORDS = 6
"""How many words tell of a check: rule, key, hits, caller, patience, and flags (ends 1, takes 2, refuses 4)."""
_MAX_UNSENT_BYTES = 16 * 1024 * 1024
_MAX_RULES = 16_384
_LEAVE_WITHIN_S = 1.0
_UNKNOWN = b"-NOSCRIPT the rule is not known here\r\n"


class SharedMemory(MemoryStore):
    """The store of the worker that counts; `serve` lets others count in it: those who may open the socket."""

    def __init__(self, *, max_keys: int = 1_000_000, clock: Callable[[], float] = time.time) -> None:
        super().__init__(max_keys=max_keys)
        self._clock = clock
        self._rules: Memo[bytes, Check] = Memo(_MAX_RULES)
        self._peers: set[_Peer] = set()
        self._server: asyncio.AbstractServer | None = None
        self._alone = asyncio.Event()

    async def serve(self, path: Path) -> None:
        """Serves on a socket that this user alone may open; raises OSError."""
        if _begins_anew(path):
            _log.warning("the worker that counted in memory has ended, and its counts with it: all limits begin anew")
        before = os.umask(0o177)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: _Peer(self), str(path))
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Ends it; workers that drain meanwhile are waited for, but not for long."""
        if self._server is not None:
            self._server.close()
        if self._peers:
            self._alone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._alone.wait(), _LEAVE_WITHIN_S)
        for peer in tuple(self._peers):
            peer.abort()

    def came(self, peer: _Peer) -> None:
        """Notes a worker."""
        self._peers.add(peer)
        if len(self._peers) > MAX_PEERS:
            peer.abort()

    def left(self, peer: _Peer) -> None:
        """Forgets a worker."""
        self._peers.discard(peer)
        if not self._peers:
            self._alone.set()

    def answer(self, asked: Sequence[Any], now: float) -> bytes:
        """Answers a command; raises IndexError, TypeError or ValueError for one that makes no sense."""
        if asked[0] != b"TAKE":
            return self._decide(asked, now) if asked[0] == b"DECIDE" else self._agree(asked)
        check = self._rules.young.get(asked[1]) or self._rules.get(asked[1])
        if check is None:
            return _UNKNOWN
        reply = self.count(check if len(asked) == 4 else _read(check, asked[1:]), asked[2], now)
        self.served += 1
        return b"-FULL there is no room for another counter\r\n" if reply is None else b":%d\r\n" % reply

    def _decide(self, asked: Sequence[Any], now: float) -> bytes:
        told = [asked[at : at + WORDS] for at in range(1, len(asked), WORDS)]
        known = [self._rules.get(words[0]) for words in told]
        checks = [_read(check, words) for check, words in zip(known, told, strict=True) if check is not None]
        if len(checks) < len(told):
            return _UNKNOWN
        self.served += len(checks)
        replies = decide(checks, lambda check: self.count(check, check.counter.prefix, now))
        return b"*%d\r\n" % len(replies) + b"".join(b"$-1\r\n" if r is None else b":%d\r\n" % r for r in replies)

    def _agree(self, asked: Sequence[Any]) -> bytes:
        if asked[0] == b"RULE":
            limit = shared_rule.read(asked[1])
            # One hit on it. Notes on counters are kept by those who ask.
            self._rules.put(shared_rule.digest(asked[1]), Check(Counter(limit, b""), limit, 1))
        return b"+OK\r\n"

    @property
    def now(self) -> float:
        """Unix time."""
        return self._clock()


def _read(check: Check, words: Sequence[Any]) -> Check:
    """Reads what counting depends on; raises IndexError, TypeError or ValueError for what makes no sense."""
    flags = int(words[5])
    limit = check.limit
    if bool(flags & 4) != limit.binding:
        limit = copy.copy(limit)
        limit.binding = not limit.binding
    hits, caller, patience_us = int(words[2]), bytes(words[3]), int(words[4])
    return Check(Counter(limit, words[1]), limit, hits, caller, bool(flags & 1), patience_us, bool(flags & 2))


def _begins_anew(path: Path) -> bool:
    """Makes room for the socket; returns whether there was one before."""
    mark = path.with_suffix(".began")
    began = mark.exists()
    mark.touch(mode=0o600)
    path.unlink(missing_ok=True)
    return began


class _Peer(asyncio.Protocol):
    """A worker that asks: what comes at once is answered in one write."""

    def __init__(self, shared: SharedMemory) -> None:
        self._shared = shared
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        self._shared.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._shared.left(self)

    def pause_writing(self) -> None:
        # It asks and does not listen.
        self.abort()

    def data_received(self, data: bytes) -> None:
        reader, answer, now = self._reader, self._shared.answer, self._shared.now
        out: list[bytes] = []
        try:
            reader.feed(data)
            while (asked := reader.gets()) is not False:
                out.append(answer(asked, now))
        except (hiredis.ProtocolError, IndexError, TypeError, ValueError):
            self.abort()
        if self._transport is not None and out:
            self._transport.write(b"".join(out))
