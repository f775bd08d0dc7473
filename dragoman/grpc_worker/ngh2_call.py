"""One request of the ngh2 engine, as its handler sees it."""

from typing import TYPE_CHECKING

from dragoman.grpc_worker.api import StatusCode
from dragoman.grpc_worker.deadlines import Expiring

if TYPE_CHECKING:
    from dragoman.grpc_worker.ngh2_connection import Connection
    from dragoman.grpc_worker.ngh2_shared import Method


class Ngh2Call:
    """A `Call` that answers on its stream; plain slots, because one is made for every request."""

    __slots__ = (
        "_connection",
        "buffer",
        "cancelled",
        "complete",
        "deadline",
        "ended",
        "method",
        "slot",
        "started",
        "stream_id",
        "swept_at",
    )

    def __init__(
        self, connection: "Connection", stream_id: int, method: "Method", deadline: float | None, started: float
    ) -> None:
        self._connection = connection
        self.stream_id = stream_id
        self.method = method
        self.deadline = deadline
        self.started = started
        self.cancelled = False
        self.ended = False
        self.complete = False
        """True once the client has ended its side."""
        self.buffer: bytearray | None = None
        """What has arrived of the message, unless it came whole in one frame."""
        self.slot: set[Expiring] | None = None
        self.swept_at: float | None = None
        """When the sweep first saw this call without its whole message."""

    def done(self, body: bytes) -> None:
        if not self.ended:
            self.ended = True
            self._connection.reply(self, body)

    def fail(self, code: StatusCode, message: str) -> None:
        if not self.ended:
            self.ended = True
            self._connection.refuse(self, code, message)

    def expire(self) -> None:
        if not self.ended:
            self.cancelled = True
            self.fail(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")
