"""`dragoman serve`: the control plane alone."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from controlplane.xds.server import ListenError
from dragoman.cli.errors import CommandError
from dragoman.cli.memory import spare_the_collector


def serve(
    config: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of manifests.")],
    xds: Annotated[str, typer.Option(help="Where Envoys are served (HOST:PORT or unix:PATH).")] = "127.0.0.1:18000",
    http: Annotated[str, typer.Option(help="Where health, metrics and status are served.")] = "127.0.0.1:18001",
    xds_insecure: Annotated[
        bool, typer.Option("--xds-insecure", help="Allow xDS in plain text on addresses other than loopback.")
    ] = False,
    dns: Annotated[
        list[str] | None, typer.Option(help="A DNS server (HOST:PORT) instead of the system's; may be repeated.")
    ] = None,
) -> None:
    """Run the control plane: watch a folder of manifests and serve xDS to the Envoys of its Gateways."""
    try:
        uvloop.run(_serve(config, xds, [_nameserver(each) for each in dns or ()], insecure=xds_insecure))
    except ListenError as error:
        raise CommandError(str(error)) from None


async def _serve(config: Path, xds: str, nameservers: list[tuple[str, int]], *, insecure: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, stop.set)
    plane = ControlPlane(
        FileSource(config),
        bind=bind,
        listen={xds: Principal("any")},
        nameservers=nameservers,
        insecure_off_loopback=insecure,
    )
    async with plane:
        spare_the_collector()
        await stop.wait()


def _nameserver(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return text.strip("[]"), 53
    if not port.isdecimal():
        raise CommandError(f"--dns {text}: expected HOST:PORT")
    return host.strip("[]"), int(port)
