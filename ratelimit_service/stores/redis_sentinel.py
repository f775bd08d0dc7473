"""Counters in the Redis server that Sentinels hold for the primary, whichever that is at present."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any, cast

import hiredis

from dragoman.batch import Batch
from ratelimit_service.stores.redis_commands import command
from ratelimit_service.stores.redis_connection import RedisConnection
from ratelimit_service.stores.redis_dial import FAULTS, RefusedError, accepted, ask_once, dial
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget, RedisUrl

_log = logging.getLogger(__name__)

_SUBSCRIBE = command("SUBSCRIBE", "+switch-master")
_PING = command("PING")
_SENTINEL_S = 0.5
"""What a Sentinel has to answer within, before the next one is asked."""
_LAST_S = 0.05
"""What those have that have not answered when most others have."""
_REMEMBER_S = 10.0
_LOOK_EVERY_S = 5.0
"""A change that nobody told us of is seen after so long."""
_HINT_S = 2.0


class RedisSentinelStore(RedisStore):
    """A `RedisStore` of whichever server is the primary."""

    def __init__(
        self,
        url: RedisUrl,
        *,
        timeout_s: float = 0.02,
        max_pending: int = 16_384,
        server_time: bool = True,
        batch: Batch | None = None,
    ) -> None:
        self._sentinels = Sentinels(url)
        super().__init__(
            url.server,
            timeout_s=timeout_s,
            max_pending=max_pending,
            server_time=server_time,
            batch=batch,
            name=url.service,
            find=self._sentinels.primary,
        )
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look for the primary and to connect."""
        super().start()
        self._following = asyncio.create_task(self._sentinels.follow(self._changed))

    async def close(self) -> None:
        """Ends the connections."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await super().close()

    def _changed(self, target: RedisTarget) -> None:
        if target != self._node.target:
            self._node.leave(f"the primary is {target} now")


class Sentinels:
    """The Sentinels of one service.

    Each failover has a number, the epoch. A Sentinel that has not heard of the last one, or is cut off, has a lower one
    than others: the highest counts.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._service = url.service
        self._server = url.server
        self._seeds = url.seeds
        self._ask = command("SENTINEL", "MASTER", url.service)
        self._hint: tuple[RedisTarget, float] | None = None
        self._known: tuple[int, float] = (0, float("-inf"))

    async def primary(self) -> RedisTarget:
        """Returns the server that is the primary; raises RefusedError where no Sentinel can say."""
        # Told once: if it is of no use, the Sentinels are asked next time.
        hint, self._hint = self._hint, None
        if hint is not None and asyncio.get_running_loop().time() - hint[1] < _HINT_S:
            return hint[0]
        return await self._agreed()

    async def follow(self, changed: Callable[[RedisTarget], None]) -> None:
        """Tells of each change, until it is cancelled. Sentinels are listened to one at a time."""
        for turn in range(1 << 62):
            sentinel = self._seeds[turn % len(self._seeds)]
            listener = _Listener(lambda message: self._heard(message, changed))
            with contextlib.suppress(*FAULTS):
                try:
                    accepted(await dial(sentinel, listener, _SUBSCRIBE, within_s=_SENTINEL_S))
                    await self._listen(listener, changed)
                finally:
                    listener.abort("is listened to no more")
            await asyncio.sleep(random.uniform(0.2, 0.5))  # noqa: S311

    async def _listen(self, listener: _Listener, changed: Callable[[RedisTarget], None]) -> None:
        while not listener.closed.done():
            # What happened before we listened, or while this Sentinel knew nothing of it.
            changed(await self._agreed())
            await asyncio.wait((listener.closed,), timeout=_LOOK_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311
            if not listener.alive():
                return

    def _heard(self, message: bytes, changed: Callable[[RedisTarget], None]) -> None:
        # +switch-master: SERVICE OLD-HOST OLD-PORT HOST PORT
        words = message.decode(errors="replace").split()
        if len(words) != 5 or words[0] != self._service or not words[4].isdigit():
            return
        target = self._server.at(words[3], int(words[4]))
        _log.info("the primary of %s is %s now", self._service, target)
        self._hint = target, asyncio.get_running_loop().time()
        changed(target)

    async def _agreed(self) -> RedisTarget:
        asking = [asyncio.ensure_future(self._named_by(sentinel)) for sentinel in self._seeds]
        try:
            answers = 0
            for each in asyncio.as_completed(asking):
                answers += not isinstance(await each, str)
                if answers * 2 > len(asking):
                    break
            # Those that hang are not waited for where most have answered.
            await asyncio.wait(asking, timeout=_LAST_S)
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        told = [each.result() for each in asking if not each.cancelled()]
        named = [answer for answer in told if not isinstance(answer, str)]
        if not named:
            faults = "; ".join(answer for answer in told if isinstance(answer, str))
            raise RefusedError(f"no Sentinel names the primary of {self._service} ({faults})")
        return self._newest(named)

    def _newest(self, named: list[tuple[int, RedisTarget]]) -> RedisTarget:
        now = asyncio.get_running_loop().time()
        epoch, target = max(named, key=lambda answer: answer[0])
        known, at = self._known
        # Sentinels that were set up anew begin to count anew: what was known holds for a while only.
        if epoch < known and now - at < _REMEMBER_S:
            raise RefusedError(f"the Sentinels of {self._service} that answer have not heard of its last failover")
        self._known = epoch, now
        return target

    async def _named_by(self, sentinel: RedisTarget) -> tuple[int, RedisTarget] | str:
        """Returns the epoch and the primary, or why there is no answer."""
        try:
            (reply,) = await ask_once(sentinel, self._ask, within_s=_SENTINEL_S)
            accepted([reply])
            found = _pairs(reply)
            epoch, port = int(found[b"config-epoch"]), int(found[b"port"])
            return epoch, self._server.at(found[b"ip"].decode(errors="replace"), port)
        except FAULTS as error:
            return f"{sentinel}: {error or 'no answer'}"
        except (KeyError, ValueError):
            return f"{sentinel}: not a Sentinel's answer"


class _Listener(RedisConnection):
    """A connection on which messages come. After the handshake nothing is asked but PING."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        super().__init__()
        self._heard = heard
        self._unanswered = 0

    def alive(self) -> bool:
        """Returns whether there was an answer since this was last called, and asks for the next one."""
        self._unanswered += 1
        if self._unanswered > 1 or self.closed.done():
            return False
        self._send(_PING)
        return True

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if self._pending:
                    entry = self._pending.popleft()
                    if isinstance(entry, asyncio.Future) and not entry.done():
                        entry.set_result(reply)
                elif (message := _message(reply)) is not None:
                    self._heard(message)
                else:
                    self._unanswered = 0
        except hiredis.ProtocolError as error:
            self.abort(f"not Redis's protocol: {error}")
        if self._reader.has_data():
            self._bound(len(data))


def _message(reply: Any) -> bytes | None:
    match reply:
        case [b"message", bytes(), bytes(text)]:
            return text
        case _:
            return None


def _pairs(reply: Any) -> dict[bytes, bytes]:
    if not isinstance(reply, list):
        raise ValueError("no list")
    words = [word for word in cast("list[Any]", reply) if isinstance(word, bytes)]
    return dict(zip(words[::2], words[1::2], strict=False))
