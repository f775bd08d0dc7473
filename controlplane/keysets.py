"""The key sets (JWKS) that policies name: fetched here, or by the replica that leads and told by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from dragoman.jwks import Fetch, JwksCache, JwksError, canonicalise, fetch_jwks

_MAX_KNOWN: Final = 10_000


class KeySets:
    """`want` says which, `on_change` hears each that is new or other than before; on the event loop."""

    def __init__(self, *, on_change: Callable[[str, str], None], fetch: Fetch = fetch_jwks, fetching: bool) -> None:
        self._on_change = on_change
        self._cache = JwksCache(on_change=self._came, fetch=fetch)
        self._wanted: Mapping[str, float] = {}
        self._fetching = fetching
        self._known: dict[str, str] = {}
        self._arrivals: dict[str, asyncio.Future[None]] = {}

    @property
    def known(self) -> Mapping[str, str]:
        """The documents, by URI."""
        return self._known

    def fetch(self, fetching: bool) -> None:
        """Fetches from now on, or leaves that to another and keeps what there is."""
        if fetching != self._fetching:
            self._fetching = fetching
            self._cache.want(self._wanted if fetching else {})

    def want(self, uris: Mapping[str, float]) -> None:
        """Keeps exactly these, each as fresh as its interval in seconds says."""
        self._wanted = dict(uris)
        for uri in self._known.keys() - uris.keys():
            del self._known[uri]
        if self._fetching:
            self._cache.want(uris)

    def take(self, documents: Mapping[str, str]) -> None:
        """Takes in what another replica has fetched, if this one does not fetch itself."""
        if self._fetching:
            return
        for uri, text in documents.items():
            with contextlib.suppress(JwksError):
                document = canonicalise(text)
                if self._known.get(uri) != document and (uri in self._known or len(self._known) < _MAX_KNOWN):
                    self._came(uri, document)

    async def arrive(self, uris: Mapping[str, float], *, within_s: float) -> None:
        """Wants these too, and waits until there is something of each, or until a first attempt to fetch it is over."""
        self.want({**uris, **self._wanted})
        waits: list[asyncio.Future[object]] = []
        for uri in uris:
            flight = self._cache.refetch(uri) if self._fetching else self._arrival(uri)
            if flight is not None:
                waits.append(flight)  # pyright: ignore[reportArgumentType]
        if waits:
            await asyncio.wait(waits, timeout=within_s)
        for uri in uris:
            self._arrivals.pop(uri, None)

    async def close(self) -> None:
        """Ends all fetching."""
        await self._cache.close()

    def _arrival(self, uri: str) -> asyncio.Future[None] | None:
        if uri in self._known:
            return None
        return self._arrivals.setdefault(uri, asyncio.get_running_loop().create_future())

    def _came(self, uri: str, document: str) -> None:
        self._known[uri] = document
        arrival = self._arrivals.pop(uri, None)
        if arrival is not None and not arrival.done():
            arrival.set_result(None)
        self._on_change(uri, document)
