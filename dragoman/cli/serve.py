"""`dragoman serve`: the control plane alone."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from dragoman import logs
from dragoman.cli.settings import ServeSettings, SettingsFile, ValidateWith, load


def serve(
    command: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Folder of manifests.")] = None,
    kubernetes: Annotated[
        bool | None, typer.Option("--kubernetes", help="Serve the objects of a Kubernetes cluster instead.")
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="How to reach the cluster. [default: the pod's account, else as kubectl]"),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="Watch this namespace alone; may be repeated. [default: all]")
    ] = None,
    xds: Annotated[
        str | None, typer.Option(help="Where Envoys are served (HOST:PORT or unix:PATH). [default: 127.0.0.1:18000]")
    ] = None,
    xds_address: Annotated[
        str | None, typer.Option(help="Where the Envoys of a cluster find the control plane (HOST:PORT).")
    ] = None,
    xds_secret: Annotated[
        str | None, typer.Option(help="Secret with the certificate of xDS in a cluster. [default: dragoman-xds]")
    ] = None,
    xds_secret_folder: Annotated[
        Path | None, typer.Option(help="Folder where that Secret is mounted, for a start without the API server.")
    ] = None,
    xds_certificate: Annotated[
        str | None, typer.Option(help="Who makes it: self-made, cert-manager or existing. [default: self-made]")
    ] = None,
    service_account: Annotated[
        list[str] | None, typer.Option(help="A service account: authz=, ratelimit= or controlplane=NAMESPACE/NAME.")
    ] = None,
    xds_token: Annotated[
        Path | None, typer.Option(help="File with the token that this replica shows to the one that leads.")
    ] = None,
    service_secret: Annotated[
        list[str] | None, typer.Option(help="Secret with the certificate of a service: authz=NAME; may be repeated.")
    ] = None,
    lease: Annotated[
        str | None, typer.Option(help="Lease by which replicas agree on who writes. [default: dragoman]")
    ] = None,
    provisioning: Annotated[
        bool | None, typer.Option(help="Start Envoys for the Gateways of a cluster. [default: yes]")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Dragoman's own image, for what runs beside Envoys.")] = None,
    envoy_image: Annotated[str | None, typer.Option(help="Image of Envoys, unless a ProxyConfig names one.")] = None,
    http: Annotated[
        str | None, typer.Option(help="Where health, metrics and status are served. [default: 127.0.0.1:18001]")
    ] = None,
    xds_insecure: Annotated[
        bool | None, typer.Option("--xds-insecure", help="Allow xDS in plain text on addresses other than loopback.")
    ] = None,
    dns: Annotated[
        list[str] | None, typer.Option(help="A DNS server (HOST:PORT) instead of the system's; may be repeated.")
    ] = None,
    authz: Annotated[
        list[str] | None, typer.Option(help="Where a worker of `dragoman authz` listens; may be repeated.")
    ] = None,
    ratelimit: Annotated[
        list[str] | None, typer.Option(help="Where a worker of `dragoman ratelimit` listens; may be repeated.")
    ] = None,
    ratelimit_quota: Annotated[
        list[str] | None,
        typer.Option(help="Where `dragoman ratelimit --quota-listen` listens: Envoys enforce rules with mode: Quota."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder that the last good version of each object, and what was served last, are kept in."),
    ] = None,
    state_key: Annotated[
        Path | None, typer.Option(help="File with a key (32 bytes) that encrypts what was served; then secrets too.")
    ] = None,
    validate_with: ValidateWith = None,
    settings: SettingsFile = None,
) -> None:
    """Run the control plane: watch a folder of manifests, or a cluster, and serve xDS to the Envoys of its Gateways."""
    flags: dict[str, object] = {"config": config, "xds": xds, "http": http, "xds_insecure": xds_insecure, "dns": dns}
    flags |= {"kubernetes": kubernetes, "kubeconfig": kubeconfig, "context": context, "namespace": namespace}
    flags |= {"xds_address": xds_address, "xds_secret": xds_secret, "xds_certificate": xds_certificate}
    flags |= {"xds_secret_folder": xds_secret_folder}
    flags |= {"service_account": service_account, "service_secret": service_secret, "lease": lease}
    flags |= {"provisioning": provisioning, "image": image, "envoy_image": envoy_image, "xds_token": xds_token}
    flags |= {"validate_with": validate_with, "ratelimit_quota": ratelimit_quota}
    loaded = load(ServeSettings, settings, **flags, authz=authz, ratelimit=ratelimit, state=state, state_key=state_key)
    logs.configure(level=loaded.log_level, format=loaded.log_format, fields={"service": "controlplane"})
    # Building the first snapshot makes no garbage, but many objects: the collector would look at them over and over.
    gc.disable()
    # Only here: what is loaded before the options are understood delays what is served.
    from dragoman.cli.options import envoy_to_ask
    from dragoman.cli.serving import run

    envoy_to_ask(loaded.validate_with)

    run(loaded, command.obj)
