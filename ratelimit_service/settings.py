"""What the service can be told, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dragoman import logs
from dragoman.grpc_worker import Address, Engine, TlsFiles
from dragoman.xds_credentials import XdsSettings
from ratelimit_service.model import OnStoreError
from ratelimit_service.stores.redis_url import RedisTarget


class RateLimitSettings(XdsSettings):
    """The settings of `dragoman ratelimit`; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str
    """HOST:PORT or unix:PATH."""
    tls_certificate: Path | None = None
    """PEM files to serve TLS with; the clients must then show a certificate that `tls_client_ca` signed, if given."""
    tls_private_key: Path | None = None
    tls_client_ca: Path | None = None
    workers: PositiveInt = 1
    config: Path | None = None
    """A file, or a folder of files, in envoyproxy/ratelimit's format; this or `xds`."""
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

    @property
    def tls(self) -> TlsFiles | None:
        """The files to serve TLS with; None for plaintext."""
        if self.tls_certificate is None or self.tls_private_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_private_key, self.tls_client_ca)

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
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_private_key")
        if self.workers > 1 and self.redis is None:
            raise ValueError(
                f"{self.workers} workers need redis: counters in memory are exact for one worker alone, and each of "
                f"{self.workers} workers would allow the whole limit"
            )
        return self
