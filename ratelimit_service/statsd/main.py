"""Tells a statsd collector what is counted, where the settings name one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Final

from dragoman.metrics import CallMetrics
from ratelimit_service.answers import Answers
from ratelimit_service.service import Service
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.statsd.counts import LIMITS, Counted, Counts
from ratelimit_service.statsd.names import Writer, sanitised
from ratelimit_service.statsd.sinks import Sink, sink_of
from ratelimit_service.statsd.target import StatsdTarget, tags_of
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.redis_open import RedisCounters

_log = logging.getLogger(__name__)

_SERVICE: Final = "ratelimit.service"
_LAST_S: Final = 2.0
"""How long the end waits for what is told last."""


class Statsd:
    """Flushes `counts` to a sink every `every_s` seconds; a collector that cannot be told is said once."""

    def __init__(self, counts: Counts, sink: Sink, *, name: str, every_s: float) -> None:
        self._counts = counts
        self._sink = sink
        self._name = name
        self._every_s = every_s
        self.without: str | None = None
        """Why the collector is not told; None while it is."""

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Tells what is new."""
        before = self.without
        try:
            await self._counts.flush(self._sink)
            self.without = None
        except OSError as error:
            self.without = f"{self._name} cannot be told: {str(error) or type(error).__name__}"
        except Exception as error:
            # What is counted must not end for what it is told to.
            self.without = f"{self._name} is not told: {type(error).__name__}"
            if before is None:
                _log.exception("the counts could not be told")
        if self.without is not None and before is None:
            _log.warning("statsd: %s", self.without)
        elif before is not None and self.without is None:
            _log.warning("statsd: %s is told again", self._name)

    async def close(self) -> None:
        """Tells what is left, if the collector is there."""
        if self.without is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self.flush()
        self._sink.close()


@contextlib.asynccontextmanager
async def telling(
    settings: RateLimitSettings, stats: StatsRegistry, *, others: Callable[[], Counted], calls: CallMetrics
) -> AsyncGenerator[Statsd | None]:
    """Tells the collector of the settings while the context lasts, and once more at its end."""
    if settings.statsd is None:
        yield None
        return
    target = StatsdTarget.parse(settings.statsd)
    writer = Writer(target.dialect, tags=tags_of(settings.statsd_tags), rewrites=settings.statsd_rewrites)
    counts = Counts(stats, writer, others=others, calls=lambda: calls.seconds)
    statsd = Statsd(counts, sink_of(target), name=str(target), every_s=settings.statsd_interval_s)
    task = asyncio.create_task(statsd.run())
    try:
        yield statsd
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=_LAST_S)
        await statsd.close()


def of_the_service(stats: StatsRegistry, answers: Answers, service: Service, store: Store) -> Counted:
    """Yields what is counted of no limit, under envoyproxy/ratelimit's names."""
    unanswered = sum(node.unanswered for node in store.nodes) if isinstance(store, RedisCounters) else 0
    yield f"{_SERVICE}.call.should_rate_limit.redis_error", unanswered
    yield f"{_SERVICE}.call.should_rate_limit.service_error", stats.malformed
    yield f"{_SERVICE}.config_load_success", service.loads
    yield f"{_SERVICE}.config_load_error", service.rejections
    yield f"{_SERVICE}.global_shadow_mode", answers.shadowed
    for domain, count in stats.unknown_domains.items():
        yield f"{LIMITS}.{sanitised(domain)}.domain_not_found", count
