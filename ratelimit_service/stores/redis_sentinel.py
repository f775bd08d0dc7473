"""Counters in the Redis server that Sentinels hold for the primary, whichever that is at present."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

import hiredis

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
_LOOK_EVERY_S = 5.0
"""A change that nobody told us of is seen after so long."""
_HINT_S = 2.0


class RedisSentinelStore(RedisStore):
    """A `RedisStore` of whichever server is the primary."""

    def __init__(
        self, url: RedisUrl, *, timeout_s: float = 0.02, max_pending: int = 16_384, server_time: bool = True
    ) -> None:
        self._sentinels = Sentinels(url)
        super().__init__(
            url.server,
            timeout_s=timeout_s,
            max_pending=max_pending,
            server_time=server_time,
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
    """The Sentinels of one service. What most of them say counts."""

    def __init__(self, url: RedisUrl) -> None:
        self._service = url.service
        self._server = url.server
        self._seeds = url.seeds
        self._ask = command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
        self._hint: tuple[RedisTarget, float] | None = None

    async def primary(self) -> RedisTarget:
        """Returns the server that is the primary; raises RefusedError where no Sentinel can say."""
        # Told once: if it is of no use, the Sentinels are asked next time.
        hint, self._hint = self._hint, None
        if hint is not None and asyncio.get_running_loop().time() - hint[1] < _HINT_S:
            return hint[0]
        return await self._voted()

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
            changed(await self._voted())
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

    async def _voted(self) -> RedisTarget:
        asking = [asyncio.ensure_future(self._named_by(sentinel)) for sentinel in self._seeds]
        votes: Tally[RedisTarget] = Tally()
        faults: list[str] = []
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    target = await answer
                except RefusedError as error:
                    faults.append(str(error))
                    continue
                votes[target] += 1
                if votes[target] * 2 > len(self._seeds):
                    break
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if not votes:
            raise RefusedError(f"no Sentinel names the primary of {self._service} ({'; '.join(sorted(faults))})")
        return votes.most_common(1)[0][0]

    async def _named_by(self, sentinel: RedisTarget) -> RedisTarget:
        try:
            (reply,) = await ask_once(sentinel, self._ask, within_s=_SENTINEL_S)
            return self._named(reply)
        except FAULTS as error:
            raise RefusedError(f"{sentinel}: {error or 'no answer'}") from None

    def _named(self, reply: Any) -> RedisTarget:
        if isinstance(reply, hiredis.ReplyError):
            raise RefusedError(str(reply))
        if reply is None:
            raise RefusedError(f"knows no {self._service}")
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return self._server.at(host.decode(errors="replace"), int(port))
            case _:
                raise RefusedError("not a Sentinel's answer")


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
