"""Joins the parts: a configuration comes in, is checked and put in force; the last good one stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dragoman.beside import beside
from dragoman.garbage import collector_paused
from ratelimit_service.answers import Answers
from ratelimit_service.build import retained
from ratelimit_service.checks import Plan
from ratelimit_service.config_xds import Resources
from ratelimit_service.handler import RateLimiter
from ratelimit_service.memo import Memo
from ratelimit_service.model import Config, Fault, OnStoreError
from ratelimit_service.planner import Planner
from ratelimit_service.stats import Counts, StatsRegistry
from ratelimit_service.stores.local import Local

_log = logging.getLogger(__name__)


class ConfigRejectedError(Exception):
    """A configuration has faults and is not put in force."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        shown = "; ".join(str(fault) for fault in faults[:10])
        super().__init__(f"{shown}; and {len(faults) - 10} more" if len(faults) > 10 else shown)
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a planner is told beside the configuration."""

    key_prefix: str = ""
    near_ratio: float = 0.8
    unknown_domain: OnStoreError | None = OnStoreError.ALLOW
    """What a request is answered whose domain is not configured; None for UNAVAILABLE."""
    answers: Answers | None = None
    merge_domains: bool = False
    local: Local | None = None
    """What decides by `on_store_error: local`."""


class _Change(NamedTuple):
    """What takes the place of what is in force."""

    config: Config
    counts: Counts
    planner: Planner
    plans: Memo[bytes, Plan]


class Service:
    """The configuration in force and what came of the last attempt to change it.

    One change after the other is made ready in a thread, while requests go on, and is put in force in an instant.
    """

    def __init__(self, limiter: RateLimiter, stats: StatsRegistry, options: PlanOptions) -> None:
        self._limiter = limiter
        self._stats = stats
        self._options = options
        self._resources = Resources(merge_domains=options.merge_domains)
        self._planner: Planner | None = None
        self.config = Config()
        self.loads = 0
        self.rejections = 0
        self.rejected: ConfigRejectedError | None = None
        """Why the last configuration was refused; None if it was taken."""
        self.on_ready: Callable[[], None] | None = None
        """Called when a configuration is put in force."""

    @property
    def ready(self) -> bool:
        """Whether a configuration is in force."""
        return self._limiter.configured

    @property
    def waiting(self) -> int:
        """How many answers are held back until it is their request's turn."""
        return len(self._limiter.waiting)

    @property
    def untold(self) -> int:
        """How many requests have ended of which the store has yet to be told."""
        return self._limiter.running.untold

    def begin_empty(self) -> None:
        """Puts a configuration without limits in force where there is none yet."""
        if not self.ready:
            self._put_in_force(self._prepared(Config()))

    async def take(self, config: Config, faults: Sequence[Fault]) -> None:
        """Puts what was read in force; raises ConfigRejectedError for faults, and what was in force stays."""
        if faults:
            raise self.reject(faults)
        change = await beside(self._prepared, config)
        # From here on nothing is waited for: a change is in force whole, or, where the task was cancelled, not at all.
        self._put_in_force(change)

    async def update(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        """Takes an update over xDS, all of it or, raising ConfigRejectedError, nothing."""
        resources, faults = await beside(self._updated, changed, removed)
        await self.take(resources.config, faults)
        self._resources = resources

    def reject(self, faults: Sequence[Fault]) -> ConfigRejectedError:
        """Notes that a configuration is refused; returns what to raise."""
        self.rejections += 1
        self.rejected = ConfigRejectedError(faults)
        for fault in faults[:100]:
            _log.error("configuration rejected: %s", fault)
        return self.rejected

    def _updated(self, changed: Mapping[str, bytes], removed: set[str]) -> tuple[Resources, list[Fault]]:
        with collector_paused():
            return self._resources.updated(changed, removed)

    def _prepared(self, config: Config) -> _Change:
        with collector_paused():
            return self._change_to(config)

    def _change_to(self, config: Config) -> _Change:
        before = self.config.domains
        config = Config({name: retained(domain, before.get(name)) for name, domain in config.domains.items()})
        options = self._options
        same = self._planner.unchanged(config) if self._planner is not None else frozenset[str]()
        # Before the planner takes limits over: those of the plans that stay are then among them.
        plans = self._limiter.plans_of(same)
        planner = Planner(
            config,
            self._stats,
            key_prefix=options.key_prefix,
            near_ratio=options.near_ratio,
            unknown_domain=options.unknown_domain,
            answers=options.answers,
            local=options.local,
            before=self._planner,
        )
        return _Change(config, self._stats.prepared(config.rules()), planner, plans)

    def _put_in_force(self, change: _Change) -> None:
        self._stats.use(change.counts)
        plans, before = self._limiter.use(change.planner, change.plans), self._planner
        self._planner = change.planner
        self.config = change.config
        self.loads += 1
        self.rejected = None
        if self.on_ready is not None:
            self.on_ready()
        if before is not None:
            asyncio.get_running_loop().run_in_executor(None, _dismiss, plans, before, change.planner)


def _dismiss(plans: Memo[bytes, Plan], before: Planner, after: Planner) -> None:
    plans.dismiss()
    before.dismiss(after)
