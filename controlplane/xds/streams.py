"""What a stream of discovery is, whatever carries it: who is let in, how many, and what is said and heard on it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from controlplane.xds import events, wire
from controlplane.xds.authentication import Authenticated, Metadata
from controlplane.xds.cache import Session, SnapshotCache
from controlplane.xds.identity import Node, Principal, Refusal, owner_of
from controlplane.xds.listening import Limits
from controlplane.xds.requests import DecodeError, Request, parse_delta, parse_sotw
from controlplane.xds.subscription import Outgoing
from dragoman.grpc_worker.api import StatusCode

_log = logging.getLogger(__name__)

Admission = Principal | Authenticated
"""Who comes by an address: known by the address itself, or by what each shows."""

Message = list[bytes]
"""What a message is made of, in order: most of it is the same for every client, and is not copied for each."""


@dataclass(frozen=True, slots=True)
class End:
    """Why a stream is ended by the server; with code OK, only so that the client comes back."""

    code: StatusCode
    message: str
    reason: str


class Context(Protocol):
    """A call of a method beside discovery, as who serves it sees it."""

    def peer(self) -> str:
        """Returns where the client is, for the log."""
        ...

    async def read(self) -> bytes | None:
        """Returns the next message; anything but bytes where the client has ended its side."""
        ...

    def write(self, message: bytes) -> Awaitable[None]:
        """Sends a message, once those before are on their way."""
        ...


Method = Callable[[Context, Principal], Awaitable[End | None]]
"""A method of two streams beside discovery: serves one call of whoever has been let in, until cancelled."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol of discovery: how requests are read and responses are written."""

    protocol: events.Protocol
    parse: Callable[[bytes], tuple[Request, Node | None]]
    encode: Callable[[Outgoing], Message]


def _encode_delta(out: Outgoing) -> Message:
    entries = [part for resource in out.resources for part in (resource.delta_head, resource.body)]
    return [*entries, wire.delta_tail(out.type_url, out.nonce, out.removed)]


def _encode_sotw(out: Outgoing) -> Message:
    entries = [part for resource in out.resources for part in (resource.sotw_head, resource.body)]
    return [*entries, wire.sotw_tail(out.type_url, out.nonce, out.version)]


DELTA: Final = Dialect("delta", parse_delta, _encode_delta)
SOTW: Final = Dialect("sotw", parse_sotw, _encode_sotw)


class Discovery:
    """One stream of discovery, free of I/O; `wake` is called whenever `next_message` may have something."""

    def __init__(
        self, cache: SnapshotCache, dialect: Dialect, principal: Principal, peer: str, wake: Callable[[], None]
    ) -> None:
        self._cache = cache
        self._dialect = dialect
        self._principal = principal
        self._peer = peer
        self._wake = wake
        self._session: Session | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self, raw: bytes) -> End | None:
        """Takes a message; returns why it ends the stream, if it does."""
        try:
            request, node = self._dialect.parse(raw)
        except DecodeError:
            return MALFORMED
        if self._session is None:
            session = self._attach(node)
            if isinstance(session, End):
                return session
            self._session = session
        violation = self._cache.handle(self._session, request)
        if violation is None:
            return None
        _log.warning("ending the stream of %s: %s", self._session.client.node_id, violation.message)
        return End(StatusCode.RESOURCE_EXHAUSTED, violation.message, "violation")

    def next_message(self) -> Message | None:
        """Takes the next message; where None, `wake` is called when there may be one."""
        session = self._session
        if session is None:
            return None
        out = self._cache.next_response(session)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if out is not None:
            message = self._dialect.encode(out)
            self._cache.metrics.pushed(out.type_url, sum(map(len, message)))
            return message
        wake_at = session.client.wake_at
        if wake_at is not None:
            self._timer = asyncio.get_running_loop().call_later(self._cache.until(wake_at), self._wake)
        return None

    def close(self) -> None:
        """Forgets the client."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._session is not None:
            self._cache.detach(self._session)
            self._session = None

    def _attach(self, node: Node | None) -> Session | End:
        owner = owner_of(self._principal, node) if node is not None else Refusal("the first request must hold the node")
        if node is None or isinstance(owner, Refusal):
            message = owner.message if isinstance(owner, Refusal) else ""
            _log.warning("refused a %s stream from %s: %s", self._dialect.protocol, self._peer, message)
            return End(StatusCode.PERMISSION_DENIED, message, "identity")
        if self._principal.is_free:
            _log.info("%s is taken for %s by its own word (%s)", self._peer, owner, node.id)
        return self._cache.attach(owner, node.id, self._dialect.protocol, self._wake)


@dataclass(eq=False, slots=True)
class Visit:
    """One that has been let in; `end` ends its stream."""

    namespace: str
    end: Callable[[End], None]
    ageing: asyncio.TimerHandle | None = None


class Gate:
    """Lets streams in, at all addresses together, and counts them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._visits: set[Visit] = set()
        self._of_namespace: Counter[str] = Counter()
        self._authenticating = 0
        self._stopping = False

    async def authenticate(self, admission: Authenticated, metadata: Metadata, peer: str) -> Principal | End:
        """Returns who it is that shows this, or why that is nobody."""
        if self._authenticating >= self._limits.max_unauthenticated:
            return _FULL
        self._authenticating += 1
        try:
            principal = await admission.authenticator.authenticate(metadata)
        finally:
            self._authenticating -= 1
        if isinstance(principal, Principal):
            return principal
        _log.warning("refused a stream from %s: %s", peer, principal.message)
        return End(StatusCode.UNAUTHENTICATED, principal.message, "unauthenticated")

    def enter(self, principal: Principal, end: Callable[[End], None], *, ages: bool) -> Visit | End:
        """Lets a stream in, where there is room; one that `ages` is ended some time, to show anew who it is."""
        namespace = principal.service_account[0] if principal.service_account is not None else ""
        if self._is_full(namespace):
            return _FULL
        visit = Visit(namespace, end)
        self._visits.add(visit)
        self._of_namespace[namespace] += 1
        if ages and self._limits.max_stream_age_s is not None:
            # Spread, so that not everybody comes at once who came at once.
            age_s = self._limits.max_stream_age_s * random.uniform(0.8, 1.0)  # noqa: S311
            visit.ageing = asyncio.get_running_loop().call_later(age_s, end, _AGED)
        return visit

    def leave(self, visit: Visit) -> None:
        """Takes in that a stream is over."""
        if visit not in self._visits:
            return
        self._visits.discard(visit)
        if visit.ageing is not None:
            visit.ageing.cancel()
        self._of_namespace[visit.namespace] -= 1
        if not self._of_namespace[visit.namespace]:
            del self._of_namespace[visit.namespace]

    def end_all(self) -> None:
        """Ends every stream, and lets no more in."""
        self._stopping = True
        for visit in list(self._visits):
            visit.end(STOPPING)

    def _is_full(self, namespace: str) -> bool:
        """Whether no more are let in: no more at all, or none of a namespace ("" for who is of none)."""
        full = bool(namespace) and self._of_namespace[namespace] >= self._limits.max_clients_of_namespace
        return full or self._stopping or len(self._visits) >= self._limits.max_clients


HEAR_OUT_S: Final = 0.5
"""For so long one who is not let in is heard before being told."""
_FULL: Final = End(StatusCode.RESOURCE_EXHAUSTED, "too many clients", "max_clients")
_AGED: Final = End(StatusCode.OK, "show a token anew", "aged")
STOPPING: Final = End(StatusCode.UNAVAILABLE, "the control plane is going away", "stopping")
MALFORMED: Final = End(StatusCode.INVALID_ARGUMENT, "malformed request", "malformed")
SILENT: Final = End(StatusCode.DEADLINE_EXCEEDED, "no request came", "silent")
STALLED: Final = End(StatusCode.RESOURCE_EXHAUSTED, "the client does not read", "stalled")
