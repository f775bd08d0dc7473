"""What the service can be told, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dragoman import logs
from dragoman.grpc_worker import Address, Engine
from ratelimit_service.model import OnStoreError
from ratelimit_service.stores.redis_url import RedisTarget


class RateLimitSettings(BaseModel):
    """The settings of `dragoman ratelimit`; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str
    """HOST:PORT or unix:PATH."""
    workers: PositiveInt = 1
    xds: str | None = None
    """The control plane's address; this or `config`."""
    config: Path | None = None
    """A file, or a folder of files, in envoyproxy/ratelimit's format."""
    redis: str | None = Field(default=None, repr=False)
    """redis://, rediss:// or unix:// URL; without it counters are kept in memory."""
    http: str | None = None
    """HOST:PORT of health and metrics."""
    engine: Engine = "ngh2"
    state: Path | None = None
    """The folder that the last good configuration is kept in."""
    node_id: str = "dragoman/ratelimit"
    response_headers: bool = True
    """Whether answers carry X-RateLimit-Limit, -Remaining and -Reset."""
    near_ratio: float = Field(default=0.8, gt=0, le=1)
    """From which part of a limit on hits count as near it, in metrics."""
    key_prefix: str = Field(default="", max_length=128)
    unknown_domain: OnStoreError = OnStoreError.ALLOW
    """What a request is answered whose domain is not configured."""
    store_timeout_s: PositiveFloat = 0.02
    max_keys: PositiveInt = 1_000_000
    """Counters in memory, at the most."""
    drain_s: float = Field(default=10.0, ge=0)
    log_level: str = "INFO"
    log_format: logs.Format = "json"

    @field_validator("listen", "http")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        if text is not None:
            Address.parse(text)
        return text

    @field_validator("redis")
    @classmethod
    def _is_redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            RedisTarget.parse(url)
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.xds is None) == (self.config is None):
            raise ValueError("give either xds or config")
        if self.workers > 1 and self.redis is None:
            raise ValueError(
                f"{self.workers} workers need redis: counters in memory are exact for one worker alone, and each of "
                f"{self.workers} workers would allow the whole limit"
            )
        return self
