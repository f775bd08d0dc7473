"""Fetches JSON Web Key Sets, keeps them fresh in the background, and keeps what it had through an issuer's outage.

With a control plane it alone fetches and pushes the documents; ext_authz running alone uses the same module.
"""

import asyncio
import json
import logging
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, cast
from urllib.parse import urlsplit

from dragoman.beside import beside

MAX_BYTES = 1 << 20
MAX_KEYS = 100
MAX_REDIRECTS = 3
TIMEOUT_S = 5.0
REFETCH_S = 10.0
"""How often a document is fetched at most because a token names a key that it has not."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
CONCURRENT_FETCHES = 4
# RFC 7518 §6.2.1, §6.3.1; RFC 8037 §2. Symmetric keys are secrets: none belongs in a document that is handed on.
_PUBLIC: Mapping[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_COMMON = ("kty", "kid", "alg", "use", "key_ops")
log = logging.getLogger("dragoman.jwks")


class JwksError(Exception):
    """A JWKS could not be had; the message says why, without the URI's credentials."""


@dataclass(frozen=True, slots=True)
class JwksStatus:
    """How far a document is. Times are seconds since the epoch."""

    document: str | None = None
    """The canonical document that is in use; None before the first one came."""
    fetched_at: float | None = None
    fault: str | None = None
    """Why the last fetch failed; None if it did not."""
    failures: int = 0
    """How many fetches failed in a row."""


Fetch = Callable[[str], Awaitable[str]]
OnChange = Callable[[str, str], Awaitable[None] | None]
"""Told of a URI whose canonical document is new or other than it was; a fetch ends when what it returns does."""


def canonicalise(document: str | bytes) -> str:
    """Returns the public signing keys of a JWKS, sorted, as compact JSON: equal keys give equal bytes.

    Raises JwksError where the document is no JWKS, has too many keys, or has none of use.
    """
    try:
        loaded: Any = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise JwksError("not JSON") from error
    members = cast("dict[str, Any]", loaded).get("keys") if isinstance(loaded, dict) else None
    if not isinstance(members, list):
        raise JwksError("no list 'keys' in it")
    if len(cast("list[Any]", members)) > MAX_KEYS:
        raise JwksError(f"more than {MAX_KEYS} keys")
    keys = {key for key in map(_public, cast("list[Any]", members)) if key is not None}
    if not keys:
        raise JwksError("no public key in it")
    return '{"keys":[' + ",".join(sorted(keys)) + "]}"


async def fetch_jwks(
    uri: str, *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES, tls: ssl.SSLContext | None = None
) -> str:
    """Returns what is at an http(s) URI; raises JwksError. At most three redirects, never from https to http."""
    if urlsplit(uri).scheme not in ("https", "http"):
        raise JwksError("neither https:// nor http://")
    try:
        # A name server that hangs must not hold up the end of the process.
        async with asyncio.timeout(timeout_s):
            body = await beside(_get, uri, timeout_s, max_bytes, tls)
        return body.decode()
    except TimeoutError as error:
        raise JwksError(f"no whole answer within {timeout_s:g} s") from error
    except urllib.error.HTTPError as error:
        raise JwksError(f"status {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise JwksError(str(getattr(error, "reason", error)) or type(error).__name__) from error


class JwksCache:
    """Holds the documents of the URIs that are wanted, each with a task that keeps it fresh."""

    def __init__(
        self,
        *,
        on_change: OnChange,
        fetch: Fetch = fetch_jwks,
        known: Mapping[str, str] | None = None,
        refetch_s: float = REFETCH_S,
        first_retry_s: float = FIRST_RETRY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`known` are documents from before, which stand until fresh ones come."""
        self._on_change = on_change
        self._fetch = fetch
        self._refetch_s = refetch_s
        self._first_retry_s = first_retry_s
        self._clock = clock
        self._states = {uri: JwksStatus(document) for uri, document in (known or {}).items()}
        self._refresh_s: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._flights: dict[str, asyncio.Task[bool]] = {}
        self._refetched: dict[str, float] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_FETCHES)

    def want(self, uris: Mapping[str, float]) -> None:
        """Keeps exactly these fresh, each at its interval in seconds; others are forgotten."""
        for uri in set(self._tasks) - uris.keys():
            self._tasks.pop(uri).cancel()
        for uri in set(self._states) - uris.keys():
            del self._states[uri]
        self._refetched = {uri: at for uri, at in self._refetched.items() if uri in uris}
        self._refresh_s = dict(uris)
        for uri in uris:
            if uri not in self._tasks:
                self._tasks[uri] = asyncio.create_task(self._keep_fresh(uri))

    def document(self, uri: str) -> str | None:
        """Returns the canonical document, None while there is none."""
        return self.status(uri).document

    def status(self, uri: str) -> JwksStatus:
        """Returns how far a document is."""
        return self._states.get(uri, JwksStatus())

    def refetch(self, uri: str) -> "asyncio.Future[bool] | None":
        """Starts or joins a fetch; its result says whether the document changed. None when it is not due yet."""
        flight = self._flights.get(uri)
        if flight is not None:
            return flight
        now = time.monotonic()
        # Only these are counted, so that the first token of a rotation is not made to wait for the second.
        if uri not in self._refresh_s or now < self._refetched.get(uri, float("-inf")) + self._refetch_s:
            return None
        self._refetched[uri] = now
        return self._start(uri)

    async def close(self) -> None:
        """Ends all fetching."""
        tasks: list[asyncio.Task[Any]] = [*self._tasks.values(), *self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_fresh(self, uri: str) -> None:
        while True:
            # Shielded: a token may wait for the same fetch when this URI is no longer wanted.
            await asyncio.shield(self._flights.get(uri) or self._start(uri))
            await asyncio.sleep(self._pause_s(uri))

    def _pause_s(self, uri: str) -> float:
        refresh_s = self._refresh_s.get(uri, LONGEST_RETRY_S)
        failures = self.status(uri).failures
        if failures:
            refresh_s = min(refresh_s, LONGEST_RETRY_S, self._first_retry_s * 2 ** min(failures - 1, 16))
        # Fleets that start together must not ask together for ever.
        return refresh_s * random.uniform(0.8, 1.0)  # noqa: S311

    def _start(self, uri: str) -> asyncio.Task[bool]:
        flight = asyncio.create_task(self._refresh(uri))
        self._flights[uri] = flight
        flight.add_done_callback(lambda _: self._flights.pop(uri, None))
        return flight

    async def _refresh(self, uri: str) -> bool:
        before = self.status(uri)
        try:
            return await self._taken(uri, before)
        except JwksError as error:
            fault = str(error)
        except Exception as error:
            # Also of who is told of a change: it is tried again, for else the keys would be the old ones for ever.
            fault = f"it could not be put to use: {type(error).__name__}"
            log.exception("the JWKS of %s could not be put to use", _shown(uri))
        if uri in self._refresh_s:
            self._states[uri] = replace(before, fault=fault, failures=before.failures + 1)
            level = logging.WARNING if before.fault != fault else logging.DEBUG
            log.log(level, "the JWKS of %s cannot be had: %s", _shown(uri), fault)
        return False

    async def _taken(self, uri: str, before: JwksStatus) -> bool:
        async with self._slots:
            document = canonicalise(await self._fetch(uri))
        if uri not in self._refresh_s:
            return False
        self._states[uri] = JwksStatus(document, self._clock())
        if document != before.document and (told := self._on_change(uri, document)) is not None:
            await told
        return document != before.document


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https" and (req.type == "https" or urlsplit(newurl).scheme != "http"):
            raise urllib.error.URLError("a redirect away from https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(uri: str, timeout_s: float, max_bytes: int, tls: ssl.SSLContext | None) -> bytes:
    opener = urllib.request.OpenerDirector()
    # Only these: urllib's usual opener reads file:// and ftp:// as well.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=tls or ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    deadline = time.monotonic() + timeout_s
    request = urllib.request.Request(uri, headers={"Accept": "application/json", "User-Agent": "dragoman"})  # noqa: S310
    with opener.open(request, timeout=timeout_s) as response:
        body = bytearray()
        # One read from the socket at a time: a sender that drips must not outlive the deadline.
        while chunk := response.read1(65536):
            body += chunk
            if len(body) > max_bytes:
                raise ValueError(f"more than {max_bytes} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(body)


def _public(member: Any) -> str | None:
    if not isinstance(member, dict):
        return None
    jwk = cast("dict[str, Any]", member)
    kind = jwk.get("kty")
    required = _PUBLIC.get(kind, ()) if isinstance(kind, str) else ()
    if not required or jwk.get("use", "sig") != "sig" or not all(isinstance(jwk.get(name), str) for name in required):
        return None
    kept = {name: jwk[name] for name in (*_COMMON, *required) if name in jwk}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def _shown(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
