"""Joins the parts: a configuration comes in, is checked and put in force; the last good one stays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dragoman.garbage import collector_paused
from ratelimit_service.answers import Answers
from ratelimit_service.build import merge
from ratelimit_service.config_xds import parse_resource
from ratelimit_service.handler import RateLimiter
from ratelimit_service.model import Config, Domain, Fault, OnStoreError
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
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
    unknown_domain: OnStoreError = OnStoreError.ALLOW
    answers: Answers | None = None
    merge_domains: bool = False
    local: Local | None = None
    """What decides by `on_store_error: local`."""


class Service:
    """The configuration in force and what came of the last attempt to change it."""

    def __init__(self, limiter: RateLimiter, stats: StatsRegistry, options: PlanOptions) -> None:
        self._limiter = limiter
        self._stats = stats
        self._options = options
        self._resources: dict[str, Domain] = {}
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

    def use(self, config: Config) -> None:
        """Puts a configuration in force."""
        self._stats.configure(config.rules())
        options = self._options
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
        self._limiter.use(planner)
        if self.on_ready is not None:
            self.on_ready()
        self._planner = planner
        self.config = config
        self.loads += 1
        self.rejected = None

    def take(self, config: Config, faults: Sequence[Fault]) -> None:
        """Puts what was read in force; raises ConfigRejectedError for faults, and what was in force stays."""
        if faults:
            raise self._reject(faults)
        self.use(config)

    def update(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        """Takes an update over xDS, all of it or, raising ConfigRejectedError, nothing."""
        resources = {name: domain for name, domain in self._resources.items() if name not in removed}
        faults: list[Fault] = []
        for name, content in changed.items():
            with collector_paused():
                domain, wrong = parse_resource(content, source=name)
            faults += wrong
            if domain is not None:
                resources[name] = domain
        domains: dict[str, Domain] = {}
        for name, domain in resources.items():
            before = domains.get(domain.name)
            if before is not None and self._options.merge_domains:
                domain, twice = merge(before, domain)
                faults += (Fault(name, 0, "descriptors", f"{each!r} is in another resource too") for each in twice)
            elif before is not None:
                faults.append(Fault(name, 0, "domain", f"{domain.name!r} is in another resource too"))
            domains[domain.name] = domain
        if faults:
            raise self._reject(faults)
        self._resources = resources
        self.use(Config(domains))

    def _reject(self, faults: Sequence[Fault]) -> ConfigRejectedError:
        self.rejections += 1
        self.rejected = ConfigRejectedError(faults)
        for fault in faults[:100]:
            _log.error("configuration rejected: %s", fault)
        return self.rejected
