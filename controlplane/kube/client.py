"""The API client: requests with bounds and time-outs, errors that can be told apart, and the lines of a watch."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
from yarl import URL

from controlplane.kube.access import Access, find_access
from controlplane.kube.errors import ApiError, KubeconfigError, error_of, error_of_status
from controlplane.kube.paths import group_version, path_of
from dragoman import __version__

__all__ = ["Api", "ApiError", "Document", "KubeconfigError", "error_of_status", "group_version", "path_of"]

Document = dict[str, Any]

MAX_IN_FLIGHT: Final = 32
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Larger than any object that an API server stores."""
_TIMEOUT_S: Final = 30.0
_CONNECT_S: Final = 5.0
_WATCH_S: Final = 300
_WATCH_SLACK_S: Final = 15.0
_BUFFER_BYTES: Final = 256 * 1024
_STARTING_S: Final = 60.0
"""How long refusals are taken for those of an API server that has just started, unless it says that it is ready."""


class Api:
    """One API server. Every method raises ApiError for an answer that is not a success, and where there is none."""

    def __init__(
        self,
        access: Access,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float = _TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._session = session
        self._timeout_s = timeout_s
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._clock = clock
        self._starting_since: float | None = None

    @classmethod
    @asynccontextmanager
    async def connect(cls, *, kubeconfig: Path | None = None, context: str | None = None) -> AsyncGenerator[Api]:
        """Finds the API server (see `find_access`) and closes all connections when left.

        Raises KubeconfigError if it is not told where the API server is; whether that answers, is not asked.
        """
        async with cls.over(await find_access(kubeconfig, context)) as api:
            yield api

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        access: Access,
        *,
        timeout_s: float = _TIMEOUT_S,
        new_socket: Callable[[Any], socket.socket] | None = None,
    ) -> AsyncGenerator[Api]:
        """The API server that this leads to. `new_socket` makes sockets for entries of `getaddrinfo`."""
        # Watches hold a connection each; what is bounded are requests.
        connector = aiohttp.TCPConnector(limit=0, socket_factory=new_socket or _socket, keepalive_timeout=30)
        headers = {"User-Agent": f"dragoman/{__version__}", "Accept-Encoding": "identity"}
        async with aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_BUFFER_BYTES
        ) as session:
            yield cls(access, session, timeout_s=timeout_s)

    @property
    def url(self) -> str:
        """The address of the API server."""
        return self._access.url

    async def get(self, path: str, *, params: Mapping[str, str] | None = None, accept: str | None = None) -> Document:
        """Returns an object or a list."""
        return await self._request("GET", path, params=params, accept=accept)

    async def create(self, path: str, document: Mapping[str, Any]) -> Document:
        """Creates an object in the collection that `path` names; returns it as it is stored."""
        return await self._request("POST", path, document=document)

    async def replace(self, path: str, document: Mapping[str, Any]) -> Document:
        """Replaces an object or a subresource; its `resourceVersion`, where set, must be the current one."""
        return await self._request("PUT", path, document=document)

    async def apply(
        self, path: str, document: Mapping[str, Any], *, field_manager: str, force: bool = True
    ) -> Document:
        """Applies fields of an object, server-side; `force` takes those that belong to others."""
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        content_type = "application/apply-patch+yaml"
        return await self._request("PATCH", path, document=document, params=params, content_type=content_type)

    async def patch(
        self,
        path: str,
        document: Mapping[str, Any] | list[Any],
        *,
        content_type: str = "application/merge-patch+json",
        params: Mapping[str, str] | None = None,
    ) -> Document:
        """Patches an object or a subresource; returns it as it is stored."""
        return await self._request("PATCH", path, document=document, params=params, content_type=content_type)

    async def delete(self, path: str, *, uid: str | None = None) -> Document:
        """Deletes an object, what it owns in the background; with `uid`, only the object that has it."""
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return await self._request("DELETE", path, document=options)

    async def lines(
        self,
        path: str,
        *,
        params: Mapping[str, str],
        accept: str | None = None,
        silence_s: float | None = None,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[bytes]:
        """Yields the lines of a watch until the API server ends it; a line that is readable comes without waiting.

        Ends with an ApiError when nothing comes for longer than the watch was to last (`timeoutSeconds`), or for
        `silence_s` where that is less. `on_open` is called when the watch is granted.
        """
        lasts_s = int(params.get("timeoutSeconds") or _WATCH_S)
        params = {"timeoutSeconds": str(lasts_s), **params, "watch": "true"}
        silent_s = min(lasts_s + _WATCH_SLACK_S, silence_s or float("inf"))
        timeout = aiohttp.ClientTimeout(
            total=lasts_s + 2 * _WATCH_SLACK_S, sock_connect=_CONNECT_S, sock_read=max(silent_s, 0.001)
        )
        async with self._open("GET", path, params=params, accept=accept, timeout=timeout) as response:
            on_open()
            pieces: list[bytes] = []
            held = 0
            async for chunk in response.content.iter_any():
                *ended, rest = chunk.split(b"\n")
                for line in ended:
                    whole = b"".join((*pieces, line)) if pieces else line
                    pieces.clear()
                    held = 0
                    if whole:
                        yield whole
                if rest:
                    pieces.append(rest)
                    held += len(rest)
                    if held > MAX_LINE_BYTES:
                        raise ApiError(0, "Malformed", f"{path}: an event of more than {MAX_LINE_BYTES} bytes")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | list[Any] | None = None,
        accept: str | None = None,
        content_type: str = "application/json",
    ) -> Document:
        data = None if document is None else json.dumps(document, separators=(",", ":")).encode()
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S)
        sent: dict[str, Any] = {"params": params, "data": data, "accept": accept, "content_type": content_type}
        async with self._in_flight, self._open(method, path, timeout=timeout, **sent) as response:
            body = await _read(response, MAX_BODY_BYTES)
        try:
            parsed: object = json.loads(body)
        except (ValueError, RecursionError):
            raise ApiError(0, "Malformed", f"{self.url}{path} did not answer with JSON") from None
        if not isinstance(parsed, dict):
            raise ApiError(0, "Malformed", f"{self.url}{path} did not answer with an object")
        return cast("Document", parsed)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        accept: str | None = None,
        content_type: str = "application/json",
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        headers = {"Accept": accept or "application/json"}
        if data is not None:
            headers["Content-Type"] = content_type
        try:
            response = await self._send(method, path, headers, params=params, data=data, timeout=timeout)
            async with response:
                if not 200 <= response.status < 300:
                    error = error_of(response.status, await _read(response, 1024 * 1024), response.headers)
                    if error.forbidden and await self._is_starting():
                        raise ApiError(503, "Starting", f"{self.url} is starting: {error.message}")
                    raise error
                yield response
        except TimeoutError:
            raise ApiError(0, "Timeout", f"{self.url} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{self.url}: {error or type(error).__name__}") from error

    async def _is_starting(self) -> bool:
        """Whether the API server is not ready yet: until it knows its own rules, it refuses what it grants later."""
        timeout = aiohttp.ClientTimeout(total=_CONNECT_S)
        try:
            async with await self._send("GET", "/readyz", {"Accept": "text/plain"}, timeout=timeout) as response:
                ready = response.status != 403 and response.status < 500
        except (TimeoutError, aiohttp.ClientError, OSError):
            ready = False
        if ready:
            self._starting_since = None
            return False
        now = self._clock()
        if self._starting_since is None:
            self._starting_since = now
        # Where even this is not permitted, one has to believe it some time.
        return now - self._starting_since < _STARTING_S

    async def _send(self, method: str, path: str, headers: dict[str, str], **sent: Any) -> aiohttp.ClientResponse:
        for refused in (False, True):
            authorization = await self._access.headers(refused=refused)
            response = await self._session.request(
                method,
                URL(self.url + path, encoded=True),
                headers={**headers, **authorization},
                ssl=self._access.tls or True,
                proxy=self._access.proxy,
                server_hostname=self._access.server_name,
                # A redirection is an error, not a place to take the token to.
                allow_redirects=False,
                **sent,
            )
            if response.status != 401 or refused:
                return response
            response.release()
        raise AssertionError


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    held = 0
    async for chunk in response.content.iter_any():
        held += len(chunk)
        if held > limit:
            raise ApiError(0, "Malformed", f"an answer of more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _socket(address: Any) -> socket.socket:
    """A socket that notices in some 20 s that the other side is gone without a word."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
