"""The settings of each command: defaults < file < environment (`DRAGOMAN_…`) < flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import typer
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dragoman import logs
from dragoman import settings as layers
from dragoman.cli.errors import CommandError
from dragoman.grpc_worker import Address

M = TypeVar("M", bound=BaseModel)

_SETTINGS: Final = "DRAGOMAN_SETTINGS"

SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        exists=True,
        dir_okay=False,
        envvar=_SETTINGS,
        help="A YAML file of settings, named as the options are; the environment and options go before it.",
    ),
]

GivenSettings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        exists=True,
        dir_okay=False,
        envvar=_SETTINGS,
        help="The YAML file of settings that `serve` or `up` is given, whose other settings are passed over.",
    ),
]

Quota = Annotated[
    bool | None,
    typer.Option("--quota", help="Take it that Envoys enforce limits with mode: Quota, as with `up --quota`."),
]
RatelimitQuota = Annotated[
    list[str] | None,
    typer.Option(help="The same as with `serve --ratelimit-quota`: where these limits are divided (HOST:PORT)."),
]

ValidateWith = Annotated[
    str | None,
    typer.Option(help="Try what is risky before it is published: with `envoy` (--mode validate). [default: no]"),
]


class ServeSettings(BaseModel):
    """The settings of `dragoman serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path | None = None
    """The folder of manifests."""
    kubernetes: bool = False
    """Whether objects come from a Kubernetes API server instead of a folder."""
    kubeconfig: Path | None = None
    """How to reach the API server; in a pod its service account goes before the default kubeconfig."""
    context: str | None = None
    """The context of the kubeconfig; its current one unless given."""
    namespace: tuple[str, ...] = ()
    """The namespaces that are watched; all of them unless given."""
    lease: str = "dragoman"
    """The Lease by which replicas agree on who writes."""
    xds_secret: str = "dragoman-xds"  # noqa: S105  (its name)
    """The Secret of the control plane's namespace with the certificate that xDS is served with in a cluster."""
    xds_secret_folder: Path | None = None
    """Where that Secret is mounted: with it, and a state, Envoys are served again before the API server answers."""
    xds_certificate: Literal["self-made", "cert-manager", "existing"] = "self-made"
    """Who makes that certificate."""
    xds_address: str | None = None
    """Where the Envoys of a cluster find the control plane: HOST:PORT."""
    service_account: tuple[str, ...] = ()
    """The service accounts of ext_authz, the rate limit service and the control plane: authz=NAMESPACE/NAME, …"""
    xds_token: Path | None = None
    """A file with the token that this replica shows to the one that leads (audience dragoman)."""
    service_secret: tuple[str, ...] = ()
    """Secrets with the certificates of services that Envoys speak TLS to: authz=NAME, ratelimit=NAME."""
    provisioning: bool = True
    """Whether Envoys are started for the Gateways of a cluster."""
    image: str = ""
    """Dragoman's own image, for what runs beside Envoys in a cluster."""
    envoy_image: str = ""
    """The image of Envoys in a cluster, where a ProxyConfig names no other."""
    xds: str = "127.0.0.1:18000"
    """Where Envoys are served: HOST:PORT or unix:PATH."""
    http: str | None = "127.0.0.1:18001"
    """Where health, metrics and status are served: HOST:PORT or unix:PATH."""
    xds_insecure: bool = False
    """Whether xDS in plain text may be served on other addresses than loopback."""
    dns: tuple[str, ...] = ()
    """DNS servers (HOST:PORT) instead of the system's."""
    authz: tuple[str, ...] = ()
    """Where the workers of ext_authz listen, for Envoys to find them."""
    ratelimit: tuple[str, ...] = ()
    """Where the workers of the rate limit service listen, for Envoys to find them."""
    ratelimit_quota: tuple[str, ...] = ()
    """Where the rate limit service divides limits with mode: Quota; of several the first, in alphabetical order."""
    state: Path | None = None
    """The folder that the last good version of each object, and what was served last, are kept in."""
    validate_with: Literal["envoy"] | None = None
    """Who is asked about what is risky before it is published: `envoy --mode validate`, or nobody."""
    state_key: Path | None = None
    """A file with the key (32 bytes) that what is served is encrypted with there; without it secrets are left out."""
    log_level: logs.Level = "INFO"
    log_format: logs.Format = "json"

    @field_validator("service_account")
    @classmethod
    def _names_service(cls, accounts: tuple[str, ...]) -> tuple[str, ...]:
        for each in accounts:
            service, equals, account = each.partition("=")
            namespace, slash, name = account.partition("/")
            if service not in ("authz", "ratelimit", "controlplane") or not (equals and namespace and slash and name):
                raise ValueError(f"{each!r} is not authz=, ratelimit= or controlplane=NAMESPACE/NAME")
        return accounts

    @field_validator("service_secret")
    @classmethod
    def _names_secret(cls, secrets: tuple[str, ...]) -> tuple[str, ...]:
        for each in secrets:
            service, _, name = each.partition("=")
            if service not in ("authz", "ratelimit") or not name:
                raise ValueError(f"{each!r} is not authz=NAME or ratelimit=NAME")
        return secrets

    @model_validator(mode="after")
    def _has_one_source(self) -> ServeSettings:
        if (self.config is not None) == self.kubernetes:
            raise ValueError("give either a folder of manifests (--config) or --kubernetes")
        if self.config is not None and self.state is None:
            # With a state, what was served last is served though the folder is away.
            _folder(self.config)
        if self.state_key is not None and self.state is None:
            raise ValueError("--state-key is for what is kept in a --state")
        return self

    @field_validator("xds", "http")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        return _address(text)


def _default_keys_file() -> Path:
    from ext_authz.settings import DEFAULT_KEYS_FILE

    return DEFAULT_KEYS_FILE


class UpSettings(BaseModel):
    """The settings of `dragoman up`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path
    """The folder of manifests."""
    http: str | None = "127.0.0.1:18001"
    """Where health, metrics and status are served: HOST:PORT or unix:PATH."""
    redis: str | None = Field(default=None, repr=False)
    """The store of counters and keys; without it counters are in memory and keys in a file."""
    keys: Path = Field(default_factory=_default_keys_file)
    """The SQLite file of API keys."""
    quota: bool = False
    """Whether Envoys enforce limits with mode: Quota, by what Envoy calls work in progress."""
    dns: tuple[str, ...] = ()
    """DNS servers (HOST:PORT) instead of the system's."""
    validate_with: Literal["envoy"] | None = None
    """Who is asked about what is risky before it is published: `envoy --mode validate`, or nobody."""
    log_level: logs.Level = "WARNING"

    @field_validator("config")
    @classmethod
    def _is_folder(cls, path: Path) -> Path:
        return _folder(path)

    @field_validator("http")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        return _address(text)


class InspectSettings(BaseModel):
    """What commands on a folder take of the settings of `up` and `serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quota: bool = False
    """Whether Envoys enforce limits with mode: Quota."""
    ratelimit_quota: tuple[str, ...] = ()
    """Where the rate limit service divides these; then they do."""

    @field_validator("ratelimit_quota")
    @classmethod
    def _are_addresses(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            _address(text)
        return texts


class CheckSettings(BaseModel):
    """What `dragoman ratelimit check` takes of the settings of `dragoman ratelimit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path | None = None
    """The file, or the folder of files, that is checked where none is named."""
    merge_domains: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """What is taken for given of the gateway that a folder is for: its services, and where limits are divided."""

    quota_mode: bool = False
    rate_limit_service: bool = True
    quota_at: tuple[str, ...] = ()


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    return path


def _address(text: str | None) -> str | None:
    if text is not None:
        Address.parse(text)
    return text


def _variables_of_others(model: type[BaseModel]) -> set[str]:
    """Returns the variables of other commands, where any that is set is not of this one: it may be of them."""
    own = layers.variable_names(model).keys() | {_SETTINGS}
    if all(name in own for name in os.environ if name.startswith(layers.PREFIX)):
        return set()
    # Only here: a command that is not theirs need not load all that they do.
    from ext_authz.settings import AuthzSettings
    from ratelimit_service.settings import RateLimitSettings

    models = (ServeSettings, UpSettings, AuthzSettings, RateLimitSettings)
    return {name for each in models for name in layers.variable_names(each)} - own


def load(model: type[M], file: Path | None, **flags: object) -> M:
    """Returns the settings of a command; an option that was not given is None, or an empty list."""
    return _loaded(model, file, flags, foreign={*_variables_of_others(model), _SETTINGS})


def served(file: Path | None, **flags: object) -> Served:
    """Returns what is taken for given of the gateway that a folder is for, as who serves it would be told."""
    found = looking(InspectSettings, file, **flags)
    return Served(found.quota or bool(found.ratelimit_quota), quota_at=found.ratelimit_quota)


def looking(model: type[M], file: Path | None, **flags: object) -> M:
    """Returns some of the settings of a command that serves, for one that looks, which does not mind any others."""
    foreign = os.environ.keys() - layers.variable_names(model)
    return _loaded(model, file, flags, foreign=foreign, foreign_fields=True)


def _loaded(
    model: type[M], file: Path | None, flags: Mapping[str, object], *, foreign: set[str], foreign_fields: bool = False
) -> M:
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    try:
        return layers.load(
            model,
            file=file,
            environ=os.environ,
            flags=given,
            foreign_variables=foreign,
            foreign_fields=foreign_fields,
        )
    except layers.SettingsError as error:
        raise CommandError("\n  ".join(["these settings cannot be used:", *map(str, error.faults)])) from None
