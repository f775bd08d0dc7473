"""Keeps an HTTP port for those who ask something: who only connects, or does not read, makes room for them."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 256
KEEP_ALIVE_S: Final = 15
"""A connection that has asked nothing for so long is cut, whether or not it ever did."""
ANSWERED_S: Final = 60.0
"""A connection whose request has not been answered by then, or whose answer was not read, is cut."""
_GRACE_S: Final = 5.0
"""A request that has taken so long gives way to a new connection where there is no room."""


class HttpConnection(H11Protocol):
    """The server's side of a connection."""

    _since: float
    _timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to serve it; where there are too many, the one that has been idle for longest is cut."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(KEEP_ALIVE_S, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the watch over it."""
        self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begins to count how long nothing is asked."""
        self._since = self.loop.time()
        super().on_response_complete()

    @property
    def _is_idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _look(self) -> None:
        waited_s = self.loop.time() - self._since
        left_s = (KEEP_ALIVE_S if self._is_idle else ANSWERED_S) - waited_s
        if left_s <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(left_s, self._look)

    def _make_room(self) -> None:
        now = self.loop.time()
        every = cast("set[HttpConnection]", self.connections)
        others = [each for each in every if each is not self and not each.transport.is_closing()]
        if len(others) < MAX_CONNECTIONS:
            return
        spare = [each for each in others if each._is_idle or now - each._since > _GRACE_S]
        min(spare, key=lambda each: each._since, default=self).transport.abort()
