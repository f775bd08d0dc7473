"""`dragoman authz` and `dragoman ratelimit`: what Envoy asks about requests, and `dragoman ratelimit check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.errors import CommandError
from dragoman.cli.settings import CheckSettings, SettingsFile, load, looking
from ext_authz.settings import AuthzSettings
from ratelimit_service.settings import RateLimitSettings

Listen = Annotated[
    str | None, typer.Option(help="Where Envoy asks: HOST:PORT or unix:PATH; with N workers PORT.., PATH.0..")
]
QuotaListen = Annotated[
    str | None,
    typer.Option(help="Where Envoys report that enforce limits with mode: quota themselves: HOST:PORT or unix:PATH."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes, each with a socket of its own. [default: 1]")]
Xds = Annotated[str | None, typer.Option(help="The control plane (HOST:PORT or unix:PATH) that policies come from.")]
XdsCa = Annotated[
    Path | None, typer.Option(help="PEM file with the authorities of the control plane's certificate: uses TLS.")
]
XdsServerName = Annotated[
    str | None, typer.Option(help="The name that the control plane's certificate is for. [default: the host of --xds]")
]
XdsClientCertificate = Annotated[
    Path | None, typer.Option(help="PEM file with the certificate to show the control plane, where it asks for one.")
]
XdsClientKey = Annotated[Path | None, typer.Option(help="PEM file with the key of --xds-client-certificate.")]
XdsToken = Annotated[Path | None, typer.Option(help="File with the service-account token to show the control plane.")]
XdsInsecure = Annotated[
    bool | None, typer.Option("--xds-insecure", help="Allow xDS in plain text from other addresses than loopback.")
]
TlsCertificate = Annotated[Path | None, typer.Option(help="PEM file to serve TLS with; it is followed when replaced.")]
TlsPrivateKey = Annotated[Path | None, typer.Option(help="PEM file with the key of --tls-certificate.")]
Redis = Annotated[str | None, typer.Option(help="redis://, rediss:// or unix:// URL of the store.")]
LimitRedis = Annotated[
    str | None,
    typer.Option(help="URL of the store: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, ..."),
]
RedisPerSecond = Annotated[str | None, typer.Option(help="URL of another store, for limits per second alone.")]
Http = Annotated[str | None, typer.Option(help="Where health and metrics are served (HOST:PORT or unix:PATH).")]
Engine = Annotated[str | None, typer.Option("--grpc-engine", help="ngh2 or grpcio. [default: ngh2]")]
State = Annotated[Path | None, typer.Option(help="Folder that the last good configuration is kept in.")]


def authz(
    listen: Listen = None,
    workers: Workers = None,
    tls_certificate: TlsCertificate = None,
    tls_private_key: TlsPrivateKey = None,
    xds: Xds = None,
    xds_ca: XdsCa = None,
    xds_server_name: XdsServerName = None,
    xds_token: XdsToken = None,
    xds_insecure: XdsInsecure = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file of policies, where there is no control plane.")
    ] = None,
    redis: Redis = None,
    keys: Annotated[Path | None, typer.Option(help="The SQLite file of API keys. [default: .dragoman/keys.db]")] = None,
    http: Http = None,
    grpc_engine: Engine = None,
    state: State = None,
    settings: SettingsFile = None,
) -> None:
    """Check JWTs and API keys for Envoy (envoy.service.auth.v3.Authorization).

    Policies come from the control plane (--xds) or from a file (--config). Keys are those of `dragoman key`.
    """
    flags: dict[str, object] = {
        "listen": listen,
        "workers": workers,
        "xds": xds,
        "config": config,
        "redis": redis,
        "keys": keys,
    }
    flags |= {"tls_certificate": tls_certificate, "tls_private_key": tls_private_key}
    flags |= {"xds_ca": xds_ca, "xds_server_name": xds_server_name, "xds_token": xds_token}
    flags |= {"xds_insecure": xds_insecure, "http": http, "engine": grpc_engine, "state": state}
    loaded = load(AuthzSettings, settings, **flags)
    from ext_authz.main import run  # here, for what it imports is of no use to the other commands

    raise typer.Exit(run(loaded))


ratelimit_app = typer.Typer(invoke_without_command=True)


@ratelimit_app.callback()
def ratelimit(
    context: typer.Context,
    listen: Listen = None,
    quota_listen: QuotaListen = None,
    workers: Workers = None,
    tls_certificate: TlsCertificate = None,
    tls_private_key: TlsPrivateKey = None,
    xds: Xds = None,
    xds_ca: XdsCa = None,
    xds_server_name: XdsServerName = None,
    xds_token: XdsToken = None,
    xds_insecure: XdsInsecure = None,
    xds_client_certificate: XdsClientCertificate = None,
    xds_client_key: XdsClientKey = None,
    xds_protocol: Annotated[
        str | None, typer.Option(help="How the control plane is asked: auto, delta or sotw. [default: auto]")
    ] = None,
    node_id: Annotated[
        str | None, typer.Option(help="What to be called there: envoy-ratelimit, for Envoy Gateway.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A file, or a folder of files, in the format of envoyproxy/ratelimit.")
    ] = None,
    merge_domains: Annotated[
        bool | None, typer.Option("--merge-domains", help="Let several files give parts of one domain.")
    ] = None,
    redis: LimitRedis = None,
    redis_per_second: RedisPerSecond = None,
    http: Http = None,
    statsd: Annotated[
        str | None,
        typer.Option(help="A statsd collector to send counts to: udp://, tcp:// or dogstatsd://HOST:PORT."),
    ] = None,
    grpc_engine: Engine = None,
    state: State = None,
    envoyproxy_environment: Annotated[
        bool, typer.Option("--envoyproxy-environment", help="Read the variables of envoyproxy/ratelimit, too.")
    ] = False,
    settings: SettingsFile = None,
) -> None:
    """Limit rates for Envoy (envoy.service.ratelimit.v3.RateLimitService).

    Counts in memory, which all workers share, or in Redis (--redis), which several machines share.
    """
    if context.invoked_subcommand is not None:
        return
    flags: dict[str, object] = {
        "listen": listen,
        "quota_listen": quota_listen,
        "workers": workers,
        "xds": xds,
        "config": config,
        "redis": redis,
        "redis_per_second": redis_per_second,
        "http": http,
        "statsd": statsd,
    }
    flags |= {"tls_certificate": tls_certificate, "tls_private_key": tls_private_key}
    flags |= {"xds_ca": xds_ca, "xds_server_name": xds_server_name, "xds_token": xds_token}
    flags |= {"xds_insecure": xds_insecure, "engine": grpc_engine, "state": state}
    flags |= {"xds_client_certificate": xds_client_certificate, "xds_client_key": xds_client_key}
    flags |= {"xds_protocol": xds_protocol, "node_id": node_id, "merge_domains": merge_domains}
    has_source = xds is not None or config is not None
    notes = _read_environment(has_source=has_source) if envoyproxy_environment else []
    loaded = load(RateLimitSettings, settings, **flags)
    from ratelimit_service.main import run

    raise typer.Exit(run(loaded, notes=notes))


def _read_environment(*, has_source: bool) -> list[str]:
    """Sets our variables as those of envoyproxy/ratelimit say, where they are not set; returns what is to be told."""
    from ratelimit_service.environment import translate

    translated = translate(os.environ)
    if translated.faults:
        raise CommandError("\n  ".join(["this environment cannot be used:", *translated.faults]))
    has_source = has_source or "DRAGOMAN_XDS" in os.environ or "DRAGOMAN_CONFIG" in os.environ
    for name, value in translated.settings.items():
        if not (has_source and name in ("xds", "config")):
            os.environ.setdefault(f"DRAGOMAN_{name.upper()}", value)
    return translated.notes


@ratelimit_app.command()
def check(
    command: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Files, or folders of files, that are one configuration. [default: what the settings name]",
        ),
    ] = None,
    merge_domains: Annotated[
        bool | None, typer.Option("--merge-domains", help="Let several files give parts of one domain.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            envvar="DRAGOMAN_SETTINGS",
            help="The YAML file of settings that `dragoman ratelimit` is given: config and merge_domains of it.",
        ),
    ] = None,
) -> None:
    """Check configuration files of the rate limiter, and say what is wrong in which line.

    Exit code 0: nothing is wrong; 1: something is. Nothing is started and nothing is contacted.
    """
    if settings is None and command.parent is not None:
        settings = command.parent.params.get("settings")
    given = looking(CheckSettings, settings, merge_domains=merge_domains)
    paths = paths or [each for each in (given.config,) if each is not None]
    if not paths:
        raise CommandError("name the files to be checked, or give the --settings that do")
    from ratelimit_service.config_file import read_files
    from ratelimit_service.config_folder import passed_over, read

    files: dict[str, bytes] = {}
    faults: list[object] = []
    for path in paths:
        found, unreadable = read(path, streams=True)
        files |= found
        faults += unreadable
        for file in passed_over(path) if not unreadable else ():
            typer.secho(f"{file}: is not read: it is neither .yaml, .yml nor .json", err=True, dim=True)
    config, wrong = read_files(files, merge_domains=given.merge_domains)
    faults += wrong
    if not files and not faults:
        faults.append(f"{paths[0]}: holds no configuration file")
    for fault in faults:
        typer.echo(str(fault))
    if faults:
        raise CommandError(_several(len(faults), "fault"))
    for name, domain in sorted(config.domains.items()):
        typer.echo(f"{name}: {_several(sum(1 for _ in domain.root.rules()), 'limit')}")
    told = (files, "file"), (config.domains, "domain"), (list(config.rules()), "limit")
    typer.echo(", ".join(_several(len(each), noun) for each, noun in told) + ", no faults")


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
