"""What followers' streams meet at the replica that leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

import grpc

from controlplane.replicas.messages import Clients, Hello, MessageError, StandIns, Whole, decode
from controlplane.replicas.presence import Member, Presence, TooManyError
from controlplane.replicas.telling import Telling
from controlplane.xds.identity import Principal
from controlplane.xds.server import Context, End
from dragoman.grpc_worker.api import StatusCode

_log = logging.getLogger(__name__)

_MAX_STREAMS: Final = 32
_FIRST_WITHIN_S: Final = 10.0
_PACE_S: Final = 0.002
"""From one message to the next that is looked at: no follower of ours has reason to be faster."""


@dataclass(eq=False, slots=True)
class _Stream:
    telling: Telling | None = None
    member: Member | None = None
    ended: asyncio.Future[End] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Leading:
    """`attend` serves followers while this replica leads; `lead` says whether it does."""

    def __init__(
        self,
        presence: Presence,
        *,
        identity: str,
        telling: Callable[[Callable[[], Member | None]], Telling],
        offered: Callable[[StandIns], None],
    ) -> None:
        self._presence = presence
        self._identity = identity
        self._telling = telling
        self._offered = offered
        self._streams: dict[_Stream, None] = {}
        self._leads = False

    def lead(self, leads: bool) -> None:
        """Serves followers from now on, or sends them to another."""
        self._leads = leads
        if not leads:
            for stream in self._streams:
                if not stream.ended.done():
                    stream.ended.set_result(_NOT_LEADING)

    def each(self, do: Callable[[Telling], None]) -> None:
        """Has something done with what each follower is told."""
        for stream in self._streams:
            if stream.telling is not None:
                do(stream.telling)

    async def attend(self, context: Context, principal: Principal) -> End | None:
        """Serves one stream, until cancelled; returns why it is ended, unless it was the follower."""
        if principal.role != "replica":
            _log.warning("refused %s: it is no replica of the control plane", context.peer())
            return _NO_REPLICA
        if not self._leads:
            return _NOT_LEADING
        if len(self._streams) >= _MAX_STREAMS:
            return End(StatusCode.RESOURCE_EXHAUSTED, "too many replicas", "max_clients")
        stream = _Stream()
        stream.telling = self._telling(lambda: stream.member)
        self._streams[stream] = None
        try:
            return await self._serve(context, stream)
        except (MessageError, TooManyError) as error:
            _log.warning("ending the stream of a replica, %s: %s", context.peer(), error)
            return End(StatusCode.INVALID_ARGUMENT, str(error), "malformed")
        except grpc.RpcError:
            return None
        finally:
            del self._streams[stream]

    async def _serve(self, context: Context, stream: _Stream) -> End | None:
        try:
            hello = await asyncio.wait_for(_read(context), _FIRST_WITHIN_S)
        except TimeoutError:
            return End(StatusCode.DEADLINE_EXCEEDED, "no message came", "silent")
        if hello is None:
            return None
        first = decode(hello)
        if not isinstance(first, Hello) or first.replica == self._identity:
            raise MessageError("the first message must say which other replica this is")
        member = stream.member = self._presence.join(first.replica, first.address)
        assert stream.telling is not None
        _log.info("replica %s follows, at %s", first.replica, context.peer())
        reading = asyncio.create_task(self._listen(context, member))
        writing = asyncio.create_task(stream.telling.run(context.write))
        try:
            await asyncio.wait((reading, writing, stream.ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.wait((reading, writing))
            self._presence.leave(member)
            _log.info("replica %s follows no more", first.replica)
        if stream.ended.done():
            return stream.ended.result()
        for task in (reading, writing):
            if not task.cancelled():
                task.result()
        return None

    async def _listen(self, context: Context, member: Member) -> None:
        while (raw := await _read(context)) is not None:
            message = decode(raw)
            if isinstance(message, Clients):
                self._presence.take(member, message)
            elif isinstance(message, StandIns):
                self._offered(message)
            elif isinstance(message, Whole):
                member.whole = True
            await asyncio.sleep(_PACE_S)


async def _read(context: Context) -> bytes | None:
    message = cast(object, await context.read())
    return message if isinstance(message, bytes) else None


_NO_REPLICA: Final = End(StatusCode.PERMISSION_DENIED, "for replicas of the control plane alone", "identity")
_NOT_LEADING: Final = End(StatusCode.UNAVAILABLE, "this replica does not lead", "not leading")
