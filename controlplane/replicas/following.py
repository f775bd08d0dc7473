"""A follower's stream to the replica that leads: kept open, and taken to another whenever that leads."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import grpc
import grpc.aio

from controlplane.kube.errors import ApiError
from controlplane.kube.lease import Holder
from controlplane.replicas import METHOD
from controlplane.replicas.messages import MAX_MESSAGE, Hello, Message, MessageError, Whole, decode
from controlplane.replicas.telling import Telling

_log = logging.getLogger(__name__)

_ANSWER_WITHIN_S: Final = 3.0
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
_USUAL_FAILURES: Final = 3  # While one replica hands over to another.
_LONG_S: Final = 5.0  # Who was followed for so long is turned to again at once.
_LOOK_EVERY_S: Final = 0.25
_ASK_EVERY_S: Final = 0.5
_ASK_EVERY_AT_LENGTH_S: Final = 2.0
_ASKS_AT_FIRST: Final = 20

_Call = grpc.aio.StreamStreamCall[bytes, bytes]


class Leader(Protocol):
    """What is to be known of the election."""

    @property
    def leading(self) -> bool: ...
    @property
    def holder(self) -> Holder | None: ...
    async def look(self) -> Holder | None: ...


@dataclass(frozen=True, slots=True)
class Trusted:
    """How the replica that leads is known: the authorities of its certificate, as PEM, and the name that it is for."""

    authorities: str
    server_name: str

    def channel(self, address: str) -> grpc.aio.Channel:
        """Returns a new channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.ssl_target_name_override", self.server_name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        credentials = grpc.ssl_channel_credentials(self.authorities.encode())
        return grpc.aio.secure_channel(address, credentials, options=options)


class Following:
    """`run` follows whoever leads, if that is another; the callables hear what comes of it.

    `on_message` is given what the leader tells, `on_whole` is called when it has told everything, `on_lost` when that
    stream is over, and `on_nobody` while nobody leads as far as can be seen.
    """

    def __init__(
        self,
        election: Leader,
        *,
        identity: str,
        address: str,
        trusted: Callable[[], Trusted],
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        telling: Callable[[], Telling],
        on_message: Callable[[Message], None],
        on_whole: Callable[[], None],
        on_lost: Callable[[], None],
        on_nobody: Callable[[], None],
    ) -> None:
        self._election = election
        self._identity = identity
        self._address = address
        self._trusted = trusted
        self._metadata = metadata
        self._telling = telling
        self._on_message = on_message
        self._on_whole = on_whole
        self._on_lost = on_lost
        self._on_nobody = on_nobody
        self.current: Telling | None = None
        self.whole = False
        self._fault = ""

    async def run(self) -> None:
        """Follows until cancelled."""
        failures = 0
        while True:
            holder = await self._find()
            began = time.monotonic()
            fault = await self._try(holder)
            failures = 0 if time.monotonic() - began > _LONG_S else failures + 1
            if failures > _USUAL_FAILURES and fault != self._fault:
                _log.warning("%s leads and cannot be followed: %s", holder.identity, fault)
                self._fault = fault
            await asyncio.sleep(_pause_s(failures))

    async def _find(self) -> Holder:
        """Waits until another leads, and returns it."""
        asked, ask_at = 0, 0.0
        while True:
            if not self._election.leading and time.monotonic() >= ask_at:
                # More often than who stands for election does: it is to be known soon to whom to turn.
                await self._ask()
                asked += 1
                every_s = _ASK_EVERY_S if asked < _ASKS_AT_FIRST else _ASK_EVERY_AT_LENGTH_S
                ask_at = time.monotonic() + every_s
            holder = self._election.holder
            if holder is not None and self._is_another(holder):
                return holder
            self._on_nobody()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _is_another(self, holder: Holder) -> bool:
        # At our own address it was the process before this one, which is gone and leads until its Lease runs out.
        return holder.identity != self._identity and holder.address not in ("", self._address)

    async def _ask(self) -> None:
        try:
            await self._election.look()
        except (ApiError, TimeoutError) as error:
            _log.debug("who leads cannot be asked: %s", error)

    async def _try(self, holder: Holder) -> str:
        """Follows for as long as that goes well; returns what went wrong, if anything did."""
        try:
            await self._follow(holder)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except (OSError, ValueError, TimeoutError, grpc.RpcError, grpc.aio.UsageError) as error:
            return str(error) or type(error).__name__
        finally:
            self.current = None
            if self.whole:
                self.whole = False
                self._on_lost()
        return ""

    async def _follow(self, holder: Holder) -> None:
        async with self._trusted().channel(holder.address) as channel:
            call = cast("_Call", channel.stream_stream(METHOD)(metadata=self._metadata()))
            self.current = telling = self._telling()
            work: list[asyncio.Task[None]] = [
                asyncio.create_task(telling.run(call.write)),
                asyncio.create_task(self._listen(call, holder)),
                asyncio.create_task(self._until_another_leads(holder)),
            ]
            try:
                await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in work:
                    task.cancel()
                await asyncio.wait(work)
            if call.done():
                # More telling than that it could be neither read nor written.
                raise MessageError(f"{(await call.code()).name} {await call.details() or ''}".rstrip())
            for task in work:
                if not task.cancelled():
                    task.result()

    async def _listen(self, call: _Call, holder: Holder) -> None:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            first = await _read(call)
        if not isinstance(first, Hello) or first.replica != holder.identity:
            raise MessageError("another answers than who leads")
        while True:
            message = await _read(call)
            if isinstance(message, Whole):
                _log.info("following %s", holder.identity)
                self.whole = True
                self._on_whole()
            elif message is not None:
                self._on_message(message)

    async def _until_another_leads(self, holder: Holder) -> None:
        while True:
            now = self._election.holder
            if now is not None and now != holder:
                return
            await asyncio.sleep(_LOOK_EVERY_S)


async def _read(call: _Call) -> Message | None:
    """Returns the next message, None for one of an unknown kind; raises MessageError at the end of the stream."""
    reading: Awaitable[object] = call.read()
    raw = await reading
    if not isinstance(raw, bytes):
        raise MessageError("it has ended the stream")
    return decode(raw)


def _pause_s(failures: int) -> float:
    longest_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(failures, 10))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311
