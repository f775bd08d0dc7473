"""What the service can be told, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dragoman import logs
from dragoman.grpc_worker import Address, Engine, TlsFiles
from dragoman.xds_credentials import XdsSettings

DEFAULT_KEYS_FILE = Path(".dragoman/keys.db")


class AuthzSettings(XdsSettings):
    """The settings of `dragoman authz`; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str
    """HOST:PORT or unix:PATH."""
    tls_certificate: Path | None = None
    """PEM files to serve TLS with; the clients must then show a certificate that `tls_client_ca` signed, if given."""
    tls_private_key: Path | None = None
    tls_client_ca: Path | None = None
    workers: PositiveInt = 1
    config: Path | None = None
    """A YAML file of policies; this or `xds`."""
    redis: str | None = Field(default=None, repr=False)
    """redis://, rediss:// or unix:// URL of the key store; without it keys are in `keys`."""
    keys: Path = DEFAULT_KEYS_FILE
    """The SQLite file of the key store."""
    http: str | None = None
    """HOST:PORT or unix:PATH of health and metrics; a host that is not loopback must be asked for by name."""
    engine: Engine = "ngh2"
    state: Path | None = None
    """The folder that the last good policies and signing keys are kept in."""
    node_id: str = Field(default="", max_length=256)
    """Empty: made of the host's name and the process' id."""
    max_verdicts: PositiveInt = 65_536
    """Verdicts that are remembered, at the most."""
    policy_kept_s: float = Field(default=60.0, ge=0)
    """How long a policy is still in force after its removal, for Envoys that still name it."""
    store_timeout_s: PositiveFloat = 0.15
    """How long the store may take to answer for a key that is not cached."""
    drain_s: float = Field(default=10.0, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """At DEBUG each refusal is logged, with the request's id."""
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
        if url is not None and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.xds is None) == (self.config is None):
            raise ValueError("give either xds or config")
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_private_key")
        return self
