"""Among how many the estimates of a limit are divided: as many as a host name has addresses, as these change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from dragoman.dns_resolvers import resolvers
from dragoman.grpc_worker import Address
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.local import Local

if TYPE_CHECKING:
    import dns.asyncresolver

_log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
"""How often is asked; the cluster's DNS keeps its answers as long."""
WITHIN_S: Final = 5.0
MOST: Final = 1_000
"""More addresses than this count as so many: whoever forges an answer must not leave everybody next to nothing."""


class Replicas:
    """Follows how many addresses a host name has, such as a headless Service; `on_number` is told each new number.

    While the DNS cannot tell, or knows of none, the last number holds.
    """

    def __init__(
        self,
        host: str,
        on_number: Callable[[int], None],
        *,
        nameservers: Sequence[tuple[str, int]] = (),
        every_s: float = EVERY_S,
        within_s: float = WITHIN_S,
    ) -> None:
        self.host = host
        self._on_number = on_number
        self._nameservers = nameservers
        self._every_s = every_s
        self._within_s = within_s
        self._resolvers: list[dns.asyncresolver.Resolver] = []
        self._number: int | None = None
        self._without: str | None = None

    @property
    def without(self) -> str | None:
        """Says what number is reckoned with for want of an answer; None where there was one."""
        if self._without is None:
            return None
        reckoned = "the setting `replicas`" if self._number is None else f"{self._number}, as it last was"
        return f"{self._without}; reckoned with is {reckoned}"

    async def run(self) -> None:
        """Asks until cancelled."""
        while True:
            self._take(await self._ask())
            await asyncio.sleep(self._every_s * random.uniform(0.8, 1.0))  # noqa: S311

    def _take(self, found: int | str) -> None:
        before, self._without = self._without, found if isinstance(found, str) else None
        if self._without is not None and before is None:
            _log.warning("the number of replicas is not known: %s", self.without)
        elif before is not None and self._without is None:
            _log.warning("the number of replicas is known again")
        if isinstance(found, int) and found != self._number:
            _log.info("limits are divided among %d replicas while the store is away", found)
            self._number = found
            self._on_number(found)

    async def _ask(self) -> int | str:
        """Returns the number of addresses, above 0; else why it is not known."""
        import dns.exception
        import dns.resolver

        reason = "no DNS server is known"
        try:
            self._resolvers = self._resolvers or resolvers(self._nameservers)
        except dns.exception.DNSException as error:
            return f"{reason}: {error}"
        for resolver in self._resolvers:
            try:
                # Of pods with addresses of both families one is enough.
                for kind in ("A", "AAAA"):
                    with contextlib.suppress(dns.resolver.NoAnswer):
                        answer = await resolver.resolve(self.host, kind, lifetime=self._within_s, search=True)
                        return min(len({record.to_text() for record in answer}), MOST)
                reason = f"{self.host} has no address"
            except dns.resolver.NXDOMAIN:
                reason = f"{self.host} has no address"
            except (dns.exception.DNSException, OSError) as error:
                reason = f"{self.host} cannot be resolved: {type(error).__name__}"
        return reason


def replicas_of(settings: RateLimitSettings, local: Local) -> Replicas | None:
    """Returns what is to run so that `local` follows the name in the settings; None where there is none."""
    if settings.replicas_from is None:
        return None
    servers = [Address.parse(text) for text in settings.dns]
    nameservers = [(server.host, server.port) for server in servers]
    return Replicas(settings.replicas_from, local.divide_among, nameservers=nameservers)
