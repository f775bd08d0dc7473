"""`dragoman authz` and `dragoman ratelimit`: what Envoy asks about requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.settings import SettingsFile, load
from ext_authz.settings import AuthzSettings
from ratelimit_service.settings import RateLimitSettings

Listen = Annotated[
    str | None, typer.Option(help="Where Envoy asks: HOST:PORT or unix:PATH; with N workers PORT.., PATH.0..")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes, each with a socket of its own. [default: 1]")]
Xds = Annotated[str | None, typer.Option(help="The control plane (HOST:PORT or unix:PATH) that policies come from.")]
Redis = Annotated[str | None, typer.Option(help="redis://, rediss:// or unix:// URL of the store.")]
Http = Annotated[str | None, typer.Option(help="Where health and metrics are served (HOST:PORT or unix:PATH).")]
Engine = Annotated[str | None, typer.Option("--grpc-engine", help="ngh2 or grpcio. [default: ngh2]")]
State = Annotated[Path | None, typer.Option(help="Folder that the last good configuration is kept in.")]


def authz(
    listen: Listen = None,
    workers: Workers = None,
    xds: Xds = None,
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
    flags = {"listen": listen, "workers": workers, "xds": xds, "config": config, "redis": redis, "keys": keys}
    loaded = load(AuthzSettings, settings, **flags, http=http, engine=grpc_engine, state=state)
    from ext_authz.main import run  # here, for what it imports is of no use to the other commands

    raise typer.Exit(run(loaded))


def ratelimit(
    listen: Listen = None,
    workers: Workers = None,
    xds: Xds = None,
    config: Annotated[
        Path | None, typer.Option(help="A file, or a folder of files, in the format of envoyproxy/ratelimit.")
    ] = None,
    redis: Redis = None,
    http: Http = None,
    grpc_engine: Engine = None,
    state: State = None,
    settings: SettingsFile = None,
) -> None:
    """Limit rates for Envoy (envoy.service.ratelimit.v3.RateLimitService).

    Counts in memory, or in Redis (--redis), which several workers and several machines share.
    """
    flags = {"listen": listen, "workers": workers, "xds": xds, "config": config, "redis": redis, "http": http}
    loaded = load(RateLimitSettings, settings, **flags, engine=grpc_engine, state=state)
    from ratelimit_service.main import run

    raise typer.Exit(run(loaded))
