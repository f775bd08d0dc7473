# pyright: standard, reportAttributeAccessIssue=false
"""Subscribes to one type of resource over ADS, keeps the last good state, and hands changes to its owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from dragoman.beside import beside
from dragoman.xds_credentials import XdsCredentials
from dragoman.xds_protocol import ClientNode, Delta, Dialect, NameOf, Received, Sotw, XdsProtocol

_log = logging.getLogger(__name__)

OnUpdate = Callable[[Mapping[str, bytes], set[str]], Awaitable[None] | None]
"""Called with name → bytes of what is new or changed, and the names that are gone; one call after the other.

Raising rejects the whole update, and so does what it returns to be awaited.
"""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before connecting again: doubling from `first_s` to `longest_s`, less a random part."""

    first_s: float = 0.1
    longest_s: float = 2.0

    def delay_s(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures in a row (at least 1)."""
        return min(self.longest_s, self.first_s * 2 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311


@dataclass(frozen=True, slots=True)
class XdsStatus:
    """How far the client is, for `/health/ready`; times are seconds since the epoch."""

    connected: bool
    last_sync: float | None
    loaded_from_file: bool
    resources: int
    rejected: str | None
    """Why the last update was rejected; None if it was accepted."""
    error: str | None
    """Why the client is not connected."""

    @property
    def ready(self) -> bool:
        """Whether there is a state to work with: the control plane's, or the last good one from the file."""
        return self.last_sync is not None or self.loaded_from_file


@dataclass(frozen=True, slots=True)
class _Held:
    """`body` is kept only where it is to be saved."""

    version: str
    body: bytes


class XdsClient:
    """A subscription to all resources of a type; `run` it as a task, and cancel the task to end it.

    `on_update` is called on the event loop; an update is acknowledged only when it is done, and until then no other is
    read. `on_sync` is called after each response that was accepted, also one without anything. With `last_good`, the
    accepted state is kept in that file (mode 0600, replaced atomically), and `load` starts from it. State of the world
    needs `name_of`.
    """

    def __init__(
        self,
        address: str,
        node_id: str,
        cluster: str,
        type_url: str,
        on_update: OnUpdate,
        *,
        on_sync: Callable[[], None] = lambda: None,
        last_good: Path | None = None,
        credentials: XdsCredentials | None = None,
        backoff: Backoff | None = None,
        max_response_bytes: int = 64 << 20,
        answer_within_s: float = 60.0,
        protocol: XdsProtocol = "delta",
        name_of: NameOf | None = None,
        node_metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._address = address
        self._node = ClientNode(node_id, cluster, node_metadata or {})
        self._dialects = _dialects(protocol, type_url, name_of)
        self._type_url = type_url
        self._on_update = on_update
        self._on_sync = on_sync
        self._last_good = last_good
        self._credentials = credentials or XdsCredentials()
        self._backoff = backoff or Backoff()
        self._max_response_bytes = max_response_bytes
        self._answer_within_s = answer_within_s
        self._held: dict[str, _Held] = {}
        self._unsaved = asyncio.Event()
        self._failures = 0
        self._answered_at: float | None = None
        self._told = ""
        self._connected = False
        self._last_sync: float | None = None
        self._loaded = False
        self._rejected: str | None = None
        self._error: str | None = None

    @property
    def status(self) -> XdsStatus:
        """How far the client is."""
        return XdsStatus(self._connected, self._last_sync, self._loaded, len(self._held), self._rejected, self._error)

    async def load(self) -> bool:
        """Starts from the last good state, if there is one that `on_update` accepts; returns whether there was."""
        if self._last_good is None:
            return False
        try:
            kept = await beside(_response_in, self._last_good)
        except FileNotFoundError:
            return False
        except (OSError, DecodeError) as error:
            _log.warning("the last good state in %s cannot be read: %s", self._last_good, error)
            return False
        if kept.type_url != self._type_url:
            _log.warning("the last good state in %s is of another type; it is left alone", self._last_good)
            return False
        rejection = await self._apply(await beside(Delta(self._type_url).of, kept, {}))
        if rejection is not None:
            _log.warning("the last good state in %s is no good any more: %s", self._last_good, rejection)
        self._loaded = rejection is None or bool(self._held)
        return self._loaded

    async def run(self) -> None:
        """Stays connected, with growing pauses after failures, until cancelled."""
        saving = asyncio.create_task(self._save_changes()) if self._last_good is not None else None
        try:
            while True:
                await self._connect()
                self._failures = 1 if self._was_steady() else self._failures + 1
                self._connected, self._answered_at = False, None
                await asyncio.sleep(self._backoff.delay_s(self._failures))
        finally:
            self._connected = False
            if saving is not None:
                saving.cancel()
                await asyncio.gather(saving, return_exceptions=True)
                if self._unsaved.is_set():
                    self._write(self._held)

    async def _connect(self) -> None:
        """Serves one stream on a channel of its own, with the authorities and the token that there are by now."""
        try:
            metadata = self._credentials.metadata()
            channel = self._credentials.channel(self._address, self._options())
        except (OSError, ValueError) as error:
            self._lost(str(error))
            return
        async with channel:
            await self._stream(channel, metadata)

    def _options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.max_receive_message_length", self._max_response_bytes),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.min_reconnect_backoff_ms", int(self._backoff.longest_s * 1000)),
            ("grpc.use_local_subchannel_pool", 1),
        ]

    async def _stream(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        dialect = self._dialects[0]
        call = channel.stream_stream(dialect.method)(metadata=metadata)
        try:
            # A server may have others beside it that answer.
            async with asyncio.timeout(self._answer_within_s):
                await call.write(dialect.first(self._node, self._versions()))
                raw = await call.read()
            await self._converse(dialect, call, raw)
            await self._ended(call)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            # Refused, or written to after the server had ended it.
            await self._ended(call)
        except DecodeError as error:
            self._lost(str(error))
        except TimeoutError:
            self._lost(f"no answer in {self._answer_within_s:g} s")
        finally:
            call.cancel()

    async def _converse(self, dialect: Dialect, call: grpc.aio.StreamStreamCall, raw: object) -> None:
        refused, repeats = "", 0
        self._answered_at = time.monotonic()
        while isinstance(raw, bytes):
            self._connected = True
            self._error = None
            received = await beside(dialect.received, raw, self._versions())
            if received is None:
                _log.debug("passed over a response of another type than %s", self._type_url)
            elif refused and received.version == refused:
                # Some servers send what was rejected again at once, and would go on doing so.
                repeats += 1
                await asyncio.sleep(self._backoff.delay_s(repeats))
                await call.write(dialect.answer(received, self._rejected))
            else:
                await call.write(await self._answer(dialect, received))
                refused, repeats = (received.version if self._rejected is not None else ""), 0
            raw = await call.read()

    async def _ended(self, call: grpc.aio.Call) -> None:
        code, details = await call.code(), await call.details()
        self._lost(f"{code}: {details}" if details else str(code))
        if code is grpc.StatusCode.UNIMPLEMENTED and len(self._dialects) > 1:
            self._dialects = self._dialects[::-1]
            _log.info("the control plane at %s is asked by %s now", self._address, self._dialects[0].method)

    def _lost(self, why: str) -> None:
        if self._was_steady() or why != self._told:
            _log.warning("not connected to the control plane at %s: %s", self._address, why)
        self._error = self._told = why

    def _was_steady(self) -> bool:
        """Whether this stream was served for longer than the longest pause: not by who ends each after a word."""
        return self._answered_at is not None and time.monotonic() - self._answered_at > self._backoff.longest_s

    def _versions(self) -> dict[str, str]:
        return {name: held.version for name, held in self._held.items()}

    async def _answer(self, dialect: Dialect, received: Received) -> bytes:
        self._rejected = await self._apply(received)
        if self._rejected is None:
            self._last_sync = time.time()
            self._on_sync()
            if received.changed or received.removed:
                self._unsaved.set()
        else:
            _log.error("rejecting an update of %s: %s", self._type_url, self._rejected)
        return dialect.answer(received, self._rejected)

    async def _apply(self, received: Received) -> str | None:
        """Hands the response to `on_update` and remembers it; returns why it was rejected, None if it was not.

        Of what is rejected, all that is good by itself is put in force all the same: a server that sends only what
        changes may never send it again.
        """
        changed = await beside(self._news, received.changed)
        names = [*received.removed, *changed]
        if received.fault is not None:
            await self._salvage([names], changed)
            return received.fault
        rejection = await self._put_in_force(names, changed)
        if rejection is not None:
            await self._salvage(_halves([*changed] if received.is_state else names), changed)
        return rejection

    async def _salvage(self, pieces: list[Sequence[str]], changed: Mapping[str, tuple[str, bytes]]) -> None:
        while pieces:
            piece = pieces.pop()
            if await self._put_in_force(piece, changed) is not None:
                pieces += _halves(piece)
            elif piece:
                self._unsaved.set()

    def _news(self, changed: Mapping[str, tuple[str, bytes]]) -> Mapping[str, tuple[str, bytes]]:
        versions = self._versions()
        return {name: each for name, each in changed.items() if versions.get(name) != each[0]}

    async def _put_in_force(self, names: Sequence[str], changed: Mapping[str, tuple[str, bytes]]) -> str | None:
        """Puts these in force, removing those that are not in `changed`; returns why they are rejected, all of them."""
        if not names:
            return None
        held, bodies, removed = await beside(self._parted, names, changed)
        try:
            done = self._on_update(bodies, removed)
            if done is not None:
                await done
        except Exception as error:
            _log.debug("on_update failed", exc_info=True)
            return f"{type(error).__name__}: {error}"
        for name in removed:
            del self._held[name]
        self._held.update(held)
        return None

    def _parted(
        self, names: Sequence[str], changed: Mapping[str, tuple[str, bytes]]
    ) -> tuple[dict[str, _Held], dict[str, bytes], set[str]]:
        """Returns what will be held, what the owner is told, and what is to be removed."""
        come = {name: changed[name] for name in names if name in changed}
        held = {name: _Held(version, body if self._last_good else b"") for name, (version, body) in come.items()}
        return held, {name: body for name, (_, body) in come.items()}, {name for name in names if name not in changed}

    async def _save_changes(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, self._held.copy()))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing  # An older state must not be written after a newer one.
                raise

    def _write(self, state: Mapping[str, _Held]) -> None:
        if self._last_good is None:
            return
        kept = discovery_pb2.DeltaDiscoveryResponse(type_url=self._type_url)
        for name, held in sorted(state.items()):
            entry = kept.resources.add(name=name, version=held.version)
            entry.resource.type_url = self._type_url
            entry.resource.value = held.body
        try:
            write_privately(self._last_good, kept.SerializeToString())
        except OSError as error:
            _log.warning("the last good state cannot be kept in %s: %s", self._last_good, error)


def _halves(names: Sequence[str]) -> list[Sequence[str]]:
    """Returns the second half and the first; nothing for what cannot be divided."""
    middle = len(names) // 2
    return [names[middle:], names[:middle]] if middle else []


def _dialects(protocol: XdsProtocol, type_url: str, name_of: NameOf | None) -> tuple[Dialect, ...]:
    if protocol == "delta" or (protocol == "auto" and name_of is None):
        return (Delta(type_url),)
    if name_of is None:
        raise ValueError("state of the world needs to know how resources are called")
    sotw = Sotw(type_url, name_of)
    return (sotw,) if protocol == "sotw" else (Delta(type_url), sotw)


def _response_in(file: Path) -> discovery_pb2.DeltaDiscoveryResponse:
    return discovery_pb2.DeltaDiscoveryResponse.FromString(file.read_bytes())


def write_privately(path: Path, payload: bytes | Iterable[bytes]) -> None:
    """Replaces a file atomically with one that its owner alone can read; raises OSError.

    What is large is given in parts, for in between others have their turn.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:  # mkstemp creates with mode 0600.
            file.writelines((payload,) if isinstance(payload, bytes) else payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
