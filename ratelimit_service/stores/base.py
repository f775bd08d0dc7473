"""What a store is to the request path: it fills in the replies to a request's checks, now or later."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from dragoman.grpc_worker import Call, StatusCode
from ratelimit_service.checks import Check

_log = logging.getLogger(__name__)


class Flight:
    """A request's questions to a store. A reply is None for a check that the store could not answer.

    What a reply says is a matter of the algorithm (`ratelimit_service.algorithms`); there, too, `together` says how
    checks act on one another that are decided together.
    """

    __slots__ = ("asked_at", "left", "replies", "sent_at")

    together: bool = False
    """Whether the checks are decided together: if one refuses, none that counts only what it admits takes anything."""

    def __init__(self) -> None:
        self.replies: list[int | None] = []
        self.left = 0
        """How many replies are to come; below zero once the flight is given up."""
        self.asked_at = 0.0
        """Unix time of the request."""
        self.sent_at = 0.0
        """Monotonic time at which it was handed to the store's connection."""

    def settle(self) -> None:
        """Called once, when every reply is there."""
        raise NotImplementedError

    def fail(self) -> None:
        """Called where `settle` raised an error that nobody expected; it has been logged."""

    def settle_or_fail(self) -> None:
        """Settles it, for who has more to do: an error must not end that, such as the answers to other requests."""
        try:
            self.settle()
        except Exception:
            self.unsettled()

    def unsettled(self) -> None:
        """Says that `settle` raised, and fails."""
        _log.exception("a reply of the store could not be put to use")
        self.fail()


class Asked(Flight):
    """A flight that a call waits for."""

    __slots__ = ("_call",)

    _call: Call

    def fail(self) -> None:
        """Says so to who asked."""
        self._call.fail(StatusCode.INTERNAL, "internal error")


class Store(Protocol):
    """Counts hits."""

    @property
    def available(self) -> bool:
        """Whether it can be asked at present."""
        ...

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Adds the hits of these checks, in order, at Unix time `now`, and has the flight settled."""
        ...

    async def close(self) -> None:
        """Ends what it runs."""
        ...
