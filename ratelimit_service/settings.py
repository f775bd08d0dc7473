"""What the service can be told: one frozen object, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dragoman.grpc_worker import Engine
from ratelimit_service.model import OnStoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitSettings:
    """The settings of `dragoman ratelimit`; times are in seconds."""

    listen: str
    """HOST:PORT or unix:PATH."""
    workers: int = 1
    xds: str | None = None
    """The control plane's address; this or `config`."""
    config: Path | None = None
    """A file, or a folder of files, in envoyproxy/ratelimit's format."""
    redis: str | None = None
    """redis://, rediss:// or unix:// URL; without it counters are kept in memory."""
    http: str | None = None
    """HOST:PORT of health and metrics."""
    engine: Engine = "ngh2"
    state: Path | None = None
    """The folder that the last good configuration is kept in."""
    node_id: str = "dragoman/ratelimit"
    response_headers: bool = True
    """Whether answers carry X-RateLimit-Limit, -Remaining and -Reset."""
    near_ratio: float = 0.8
    key_prefix: str = ""
    unknown_domain: OnStoreError = OnStoreError.ALLOW
    store_timeout_s: float = 0.02
    max_keys: int = 1_000_000
    """Counters in memory, at the most."""
    drain_s: float = 10.0

    def faults(self) -> list[str]:
        """Returns what makes no sense together, in words for a person."""
        found: list[str] = []
        if (self.xds is None) == (self.config is None):
            found.append("give either --xds or --config")
        if self.workers < 1:
            found.append("--workers must be at least 1")
        if self.workers > 1 and self.redis is None:
            found.append(
                f"--workers {self.workers} needs --redis: counters in memory are exact for one worker alone, "
                f"since each of {self.workers} workers would allow the whole limit"
            )
        if not 0 < self.near_ratio <= 1:
            found.append("near_ratio must be above 0, and 1 at the most")
        if self.store_timeout_s <= 0:
            found.append("store_timeout_s must be above 0")
        return found
