"""Host names of Backends as a source: resolved here, so that Envoy's clusters are warm as soon as they are known."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dragoman.dns_resolvers import resolvers

if TYPE_CHECKING:
    import dns.asyncresolver

_log = logging.getLogger(__name__)

_MIN_TTL_S: Final = 1.0
_MAX_TTL_S: Final = 300.0
_RETRY_S: Final = 2.0

OnAddresses = Callable[[Mapping[str, tuple[str, ...]]], None]


class DnsSource:
    """Keeps the addresses of the watched host names current, and says so when they change.

    A name that does not resolve within `patience_s` is said to have no addresses; one that had some keeps them through
    an outage of its servers (RFC 8767), and loses them when a server says that it does not exist.
    """

    def __init__(
        self, on_addresses: OnAddresses, *, nameservers: Sequence[tuple[str, int]] = (), patience_s: float = 5.0
    ) -> None:
        self._on_addresses = on_addresses
        self._patience_s = patience_s
        self._nameservers = nameservers
        self._resolvers: list[dns.asyncresolver.Resolver] = []
        self._watched: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, tuple[str, ...]] = {}

    def remember(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Takes addresses that hosts had before, to be kept until a server says otherwise."""
        self._known = {**addresses, **self._known}

    def watch(self, hosts: frozenset[str]) -> None:
        """Makes these the watched names; must be called on the event loop."""
        for host in self._watched.keys() - hosts:
            self._watched.pop(host).cancel()
            self._known.pop(host, None)
        if hosts and not self._resolvers:
            self._resolvers = resolvers(self._nameservers)
        for host in hosts - self._watched.keys():
            self._watched[host] = asyncio.create_task(self._keep(host), name=f"dns {host}")

    async def stop(self) -> None:
        """Ends all watching."""
        tasks = list(self._watched.values())
        self.watch(frozenset())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, host: str) -> None:
        impatience = asyncio.get_running_loop().call_later(self._patience_s, self._give_up_waiting, host)
        try:
            while True:
                found, ttl_s = await self._resolve(host)
                if found is not None:
                    self._tell(host, found)
                await asyncio.sleep(min(max(ttl_s, _MIN_TTL_S), _MAX_TTL_S) * random.uniform(0.9, 1.0))  # noqa: S311
        finally:
            impatience.cancel()

    def _give_up_waiting(self, host: str) -> None:
        if host not in self._known:
            _log.warning("%s has no address after %g s; still trying", host, self._patience_s)
            self._tell(host, ())

    def _tell(self, host: str, found: tuple[str, ...]) -> None:
        if self._known.get(host) != found:
            self._known[host] = found
            self._on_addresses({host: found})

    async def _resolve(self, host: str) -> tuple[tuple[str, ...] | None, float]:
        """Returns the addresses, sorted, and how long they hold in seconds; None where nobody could tell."""
        fixed = _in_hosts_file(host)
        if fixed:
            return fixed, _RETRY_S
        answers = await asyncio.gather(self._query(host, "A"), self._query(host, "AAAA"))
        if all(answer is None for answer in answers):
            return None, _RETRY_S
        known = [answer for answer in answers if answer is not None]
        addresses = tuple(sorted(address for found, _ in known for address in found))
        return addresses, min(ttl for _, ttl in known)

    async def _query(self, host: str, kind: str) -> tuple[tuple[str, ...], float] | None:
        import dns.exception
        import dns.resolver

        for resolver in self._resolvers:
            try:
                answer = await resolver.resolve(host, kind, lifetime=30.0, search=False)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                return (), _RETRY_S
            except (dns.exception.DNSException, OSError) as error:
                _log.debug("%s %s: %s", host, kind, error)
                continue
            return tuple(record.to_text() for record in answer), float(getattr(answer, "ttl", _RETRY_S))
        return None


def _in_hosts_file(host: str, path: Path = Path("/etc/hosts")) -> tuple[str, ...]:
    try:
        lines = [line.partition("#")[0].split() for line in path.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return ()
    return tuple(sorted({fields[0] for fields in lines if host in fields[1:]}))
