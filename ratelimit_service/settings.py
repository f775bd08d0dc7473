"""What the service can be told, checked before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dragoman import logs
from dragoman.grpc_worker import Address, Engine, TlsFiles
from dragoman.xds_credentials import XdsSettings
from dragoman.xds_protocol import XdsProtocol
from ratelimit_service.answers import AnswerOptions
from ratelimit_service.headers import HeaderNames, ResponseHeaders
from ratelimit_service.model import OnStoreError
from ratelimit_service.stats import Detail, StatsRegistry
from ratelimit_service.statsd.target import Dialect, Rewrite, StatsdTarget, tags_of
from ratelimit_service.stores.redis_url import RedisUrl


def _header(name: str) -> Any:
    return Field(default=name, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")


def _read(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


DEFAULT_NODE_ID = "dragoman/ratelimit"
MAX_AGE_S = 2_000_000.0
"""Of connections: grpcio counts milliseconds in 32 bits."""


class RateLimitSettings(XdsSettings):
    """The settings of `dragoman ratelimit`; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str
    """HOST:PORT or unix:PATH."""
    quota_listen: str | None = None
    """HOST:PORT or unix:PATH of quota mode (RateLimitQuotaService), which Envoy calls work in progress."""
    tls_certificate: Path | None = None
    """PEM files to serve TLS with; the clients must then show a certificate that `tls_client_ca` signed, if given."""
    tls_private_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_client_san: str = ""
    """The DNS name, IP address or URI that such a certificate must be for besides."""
    max_connection_age_s: float = Field(default=0.0, ge=0, le=MAX_AGE_S)
    """After how long a connection is closed once its calls have ended, so that another one may reach another pod; 0:
    never. Give or take a tenth."""
    max_connection_age_grace_s: float = Field(default=3600.0, ge=0, le=MAX_AGE_S)
    """How long its calls may take then."""
    workers: PositiveInt = 1
    config: Path | None = None
    """A file, or a folder of files, in envoyproxy/ratelimit's format; this or `xds`."""
    merge_domains: bool = False
    """Whether several files, or resources, may each give a part of one domain."""
    xds_protocol: XdsProtocol = "auto"
    """How `xds` is asked: by delta, by sotw (state of the world), or by whichever it knows (auto)."""
    redis: str | None = Field(default=None, repr=False)
    """URL of the store (docs/ratelimit/stores.md); without it counters are kept in memory."""
    redis_per_second: str | None = Field(default=None, repr=False)
    """URL of another store, for limits per second alone."""
    http: str | None = None
    """HOST:PORT of health and metrics."""
    engine: Engine = "ngh2"
    state: Path | None = None
    """The folder that the last good configuration is kept in."""
    node_id: str = DEFAULT_NODE_ID
    """What the control plane is told to be asked by; unless it is given, each worker has one of its own."""
    xds_node_metadata: tuple[str, ...] = ()
    """What it is told of the node besides: name=value."""
    response_headers: ResponseHeaders = ResponseHeaders.DRAFT_03
    """What answers tell clients of their limits: none, plain, draft-03, ietf or both (the latter two)."""
    limit_header: str = _header("x-ratelimit-limit")
    remaining_header: str = _header("x-ratelimit-remaining")
    reset_header: str = _header("x-ratelimit-reset")
    """How the headers of `plain` and `draft-03` are called."""
    response_metadata: bool = False
    """Whether answers carry dynamic metadata, as envoyproxy/ratelimit's with RESPONSE_DYNAMIC_METADATA."""
    response_quota: int = Field(default=0, ge=0, le=1_000_000)
    """How many requests ahead a client is granted that may admit them without asking (RateLimitResponse.quota)."""
    shadow_mode: bool = False
    """Refuses no request: everything is counted and told, and let through."""
    quota_mode: bool = False
    """Every limit lets through what is over it, and names it in the dynamic metadata."""
    look_first: bool = False
    """Of a request of which one fixed window is over, the others count nothing: all are looked at first."""
    near_ratio: float = Field(default=0.8, gt=0, le=1)
    """From which part of a limit on hits count as near it, in metrics."""
    key_prefix: str = Field(default="", max_length=128)
    metrics_detail: Detail = Detail.VALUE
    """How far metrics tell limits apart: domain, descriptor or value."""
    metrics_max_descriptors: int = Field(default=10_000, ge=0)
    """Configured descriptors with metrics of their own; what is more is counted for its domain."""
    metrics_max_values: int = Field(default=1_000, ge=0)
    """The same for what requests bring about: values that are told apart, limits that they bring."""
    statsd: str | None = None
    """A statsd collector that counts are sent to: udp://HOST:PORT, tcp://HOST:PORT or dogstatsd://HOST:PORT."""
    statsd_tags: tuple[str, ...] = ()
    """What every line is tagged with: name:value."""
    statsd_interval_s: float = Field(default=10.0, ge=0.1, le=3600)
    statsd_rewrites: Annotated[dict[str, Rewrite], BeforeValidator(_read)] = Field(default_factory=dict[str, Rewrite])
    """For dogstatsd: names become others, with tags; the first that fits counts. In a variable it is JSON."""
    unknown_domain: OnStoreError | None = None
    """What a request is answered whose domain is not configured. Unless given, it is let through where limits come
    from files; where a control plane sends them the answer is UNAVAILABLE, and Envoy's failure mode decides."""
    store_timeout_s: PositiveFloat = 0.02
    replicas: PositiveInt = 1
    """How many of this service count in one store, several workers being one: `on_store_error: local` divides by it."""
    replicas_from: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,254}$")
    """A host name with an address for each of them (a headless Service): it goes before `replicas` once it is known."""
    dns: tuple[str, ...] = ()
    """DNS servers (HOST:PORT) that are asked for it instead of the system's."""
    max_keys: PositiveInt = 1_000_000
    """Counters in memory, at the most."""
    shared_memory: Path | None = None
    """The socket by which the workers of a pool share one memory; the pool sets this and what follows."""
    shares_memory: bool = False
    """Whether this is the worker that counts for the others."""
    processes: PositiveInt = 1
    """How many workers the pool has, this one being among them."""
    drain_s: float = Field(default=10.0, ge=0)
    log_level: logs.Level = "INFO"
    log_format: logs.Format = "json"

    @property
    def tls(self) -> TlsFiles | None:
        """The files to serve TLS with; None for plaintext."""
        if self.tls_certificate is None or self.tls_private_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_private_key, self.tls_client_ca, self.tls_client_san)

    @property
    def node_metadata(self) -> dict[str, str]:
        """What the control plane is told of the node besides its name."""
        return {name: value for name, _, value in (each.partition("=") for each in self.xds_node_metadata)}

    @property
    def stats(self) -> StatsRegistry:
        """Returns a new registry of counts."""
        return StatsRegistry(
            detail=self.metrics_detail,
            max_descriptors=self.metrics_max_descriptors,
            max_values=self.metrics_max_values,
        )

    @property
    def answers(self) -> AnswerOptions:
        """What answers carry."""
        return AnswerOptions(
            headers=self.response_headers,
            header_names=HeaderNames(
                self.limit_header.lower(), self.remaining_header.lower(), self.reset_header.lower()
            ),
            metadata=self.response_metadata,
            shadow_mode=self.shadow_mode,
            quota_mode=self.quota_mode,
        )

    @field_validator("listen", "quota_listen", "http")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        if text is not None:
            Address.parse(text)
        return text

    @field_validator("dns")
    @classmethod
    def _are_servers(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            if Address.parse(text).is_unix:
                raise ValueError(f"{text}: expected HOST:PORT")
        return texts

    @field_validator("xds_node_metadata")
    @classmethod
    def _are_named(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            if not text.partition("=")[0] or "=" not in text:
                raise ValueError(f"{text}: expected name=value")
        return texts

    @field_validator("statsd")
    @classmethod
    def _is_collector(cls, url: str | None) -> str | None:
        if url is not None:
            StatsdTarget.parse(url)
        return url

    @field_validator("statsd_tags")
    @classmethod
    def _are_tags(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        tags_of(texts)
        return texts

    @field_validator("redis", "redis_per_second")
    @classmethod
    def _is_redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            RedisUrl.parse(url)
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.xds is None) == (self.config is None):
            raise ValueError("give either xds or config")
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key go together")
        if self.redis_per_second is not None and self.redis is None:
            raise ValueError("redis_per_second is beside redis, and needs it")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_private_key")
        if self.tls_client_san and self.tls_client_ca is None:
            raise ValueError("tls_client_san needs tls_client_ca")
        if self.tls_client_san and self.quota_listen is not None:
            raise ValueError("tls_client_san is not supported with quota_listen")
        if self.statsd_rewrites and (self.statsd is None or not self.statsd.startswith(Dialect.DOGSTATSD)):
            raise ValueError("statsd_rewrites is for statsd: dogstatsd://HOST:PORT")
        return self
