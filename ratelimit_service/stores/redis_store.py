"""Counters in one Redis server. While it is out of reach every question is answered at once: not known."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from dragoman.batch import Batch
from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_commands import decide
from ratelimit_service.stores.redis_node import NodeOptions, RedisNode
from ratelimit_service.stores.redis_url import RedisTarget


class RedisStore:
    """Asks one server at a time; `find`, if given, says which one that is at present."""

    def __init__(
        self,
        target: RedisTarget,
        *,
        timeout_s: float = 0.02,
        max_pending: int = 16_384,
        server_time: bool = True,
        batch: Batch | None = None,
        name: str = "",
        find: Callable[[], Awaitable[RedisTarget]] | None = None,
    ) -> None:
        async def found() -> RedisTarget:
            return target

        options = NodeOptions(timeout_s=timeout_s, max_pending=max_pending, server_time=server_time, batch=batch)
        self._node = RedisNode(name or str(target), find or found, options, primary_only=find is not None)

    @property
    def available(self) -> bool:
        """Whether it can be asked at present."""
        return self._node.available

    @property
    def lack(self) -> str | None:
        """What is missing, in words."""
        return self._node.lack

    @property
    def nodes(self) -> Sequence[RedisNode]:
        """The servers that it asks."""
        return (self._node,)

    def start(self) -> None:
        """Begins to connect; returns at once, whether or not the server is there."""
        self._node.start()

    async def close(self) -> None:
        """Ends the connection."""
        await self._node.close()

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Sends the checks with all others of this turn of the event loop; the flight is settled by their replies."""
        node = self._node
        connection = node.connection
        flight.replies = [None] * len(checks)
        if connection is None or not connection.usable:
            node.pass_over(len(checks))
            flight.settle()
            return
        flight.asked_at = now
        flight.sent_at = time.monotonic()
        if flight.together:
            flight.left = 1
            check = decide(tuple(enumerate(checks)), now)
            node.ask(connection, check, now, (flight, 0, check))
            return
        flight.left = len(checks)
        for index, check in enumerate(checks):
            node.ask(connection, check, now, (flight, index, check))
