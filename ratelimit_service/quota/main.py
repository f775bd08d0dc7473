"""Puts quota mode beside the service, where it is asked for."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from dragoman.grpc_worker import Address
from dragoman.metrics import Collected
from ratelimit_service.quota.ledger import Ledger
from ratelimit_service.quota.metrics import collector
from ratelimit_service.quota.server import QuotaServer, serving
from ratelimit_service.service import Service
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import StatsRegistry

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Quota:
    """Quota mode that serves."""

    ledger: Ledger
    server: QuotaServer
    metrics: Collected


@contextlib.asynccontextmanager
async def serve_quota(
    settings: RateLimitSettings, service: Service, stats: StatsRegistry
) -> AsyncGenerator[Quota | None]:
    """Serves while the context lasts, if the settings say where; raises OSError when it cannot listen."""
    if settings.quota_listen is None:
        yield None
        return
    ledger = Ledger(lambda: service.config, stats, clock=time.monotonic)
    async with serving(ledger, listen=Address.parse(settings.quota_listen), tls=settings.tls) as server:
        _log.info("dividing limits with mode: quota on %s", server.address)
        yield Quota(ledger, server, collector(ledger, server))
