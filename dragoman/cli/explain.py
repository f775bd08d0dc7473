"""Commands that say why: `explain` (what becomes of a request), `diff` (what a change would change)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.engine import Engine
    from controlplane.explain.lines import Line

_STYLES = {"title": "bold", "plain": "", "good": "green", "bad": "red", "dim": "dim"}
_INDENT = "  "

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def explain(
    url: Annotated[str, typer.Argument(help="What a client asks for: http://HOST[:PORT]/PATH.")],
    folder: Annotated[
        Path | None, typer.Argument(exists=True, file_okay=False, help="Folder of manifests, if not --server.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header, 'name: value'; may be repeated.")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method.")] = "GET",
    gateway: Annotated[str | None, typer.Option(help="The Gateway (NAMESPACE/NAME), where several have the port.")] = (
        None
    ),
    listener: Annotated[str | None, typer.Option(help="A listener by name, whatever the port of the URL.")] = None,
    server: Annotated[
        str | None, typer.Option(help="A running control plane instead of a folder (http://127.0.0.1:18001).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what becomes of a request, and why: listener, host, rule, filters, policies, backends.

    Exit code 0: a route has the request; 1: none has, and the nearest are told.
    """
    from controlplane.explain import Request, locator
    from controlplane.explain import explain as explain_request
    from controlplane.explain.lines import lines

    if (folder is None) == (server is None):
        raise CommandError("give either a folder or --server")
    try:
        request = Request.of(url, method=method, headers=header or ())
    except ValueError as error:
        raise CommandError(str(error)) from None
    engine = _engine(folder)
    found = explain_request(engine.pipeline, request, locate=locator(engine), gateway=gateway, listener=listener)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(lines(found))
    if found.chosen is None:
        raise typer.Exit(1)


def _engine(folder: Path | None) -> Engine:
    from dragoman.cli.offline import engine_of

    assert folder is not None
    return engine_of(folder)


def _show(lines: Iterable[Line]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(_INDENT * line.depth + line.text, style=_STYLES[line.style]), soft_wrap=True)
