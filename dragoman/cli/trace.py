"""`dragoman trace`: what became of the last changes, stage by stage and client by client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from dragoman.cli.asking import get, not_understood, print_lines
from dragoman.cli.errors import CommandError

_LOOK_EVERY_S = 0.5
_TELL_AFTER_MS = 5000.0


def trace(
    object_: Annotated[
        str, typer.Argument(metavar="[OBJECT]", help="Part of an object's name: 'HTTPRoute shop/orders', 'orders'.")
    ] = "",
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=256, help="How many changes.")] = 5,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each change, once every client has answered it.")
    ] = False,
    server: Annotated[str, typer.Option(help="A running control plane.")] = "http://127.0.0.1:18001",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a change a line.")] = False,
) -> None:
    """Say what became of the last changes: when each was seen, taken, compiled, sent, and by whom acknowledged.

    A running control plane remembers its last 256 changes; it tells who comes by loopback.
    """
    try:
        found = _following(server, object_, last) if follow else _changes(server, object_, last=last)[0]
        if found == []:
            about = f" of {object_}" if object_ else ""
            raise CommandError(f"no change{about} is remembered")
        for change in found:
            _print(change, as_json=as_json)
    except KeyboardInterrupt:
        return


def _changes(server: str, words: str, *, last: int = 256, since: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Returns changes, and the number of the newest that there is."""
    body = get(server, f"/changes?{urlencode({'object': words, 'last': last, 'since': since})}")
    try:
        answer = json.loads(body)
        return answer["changes"], answer["newest"]
    except (ValueError, KeyError, TypeError):
        raise not_understood(server) from None


def _following(server: str, words: str, last: int) -> Iterator[dict[str, Any]]:
    """Yields the last changes and from then on each, when it is over or has taken long; none of them twice."""
    told: set[int] = set()
    found, since = _changes(server, words, last=last)
    while True:
        for change in found:
            if change["id"] not in told and (change["state"] != "under way" or change["age_ms"] > _TELL_AFTER_MS):
                told.add(change["id"])
                yield change
        since = min((each["id"] - 1 for each in found if each["id"] not in told), default=since)
        told = {each for each in told if each > since}
        time.sleep(_LOOK_EVERY_S)
        found, newest = _changes(server, words, since=since)
        if newest < since:  # It has begun anew.
            told.clear()
            found, newest = _changes(server, words)
        since = newest


def _print(change: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(change))
        return
    from controlplane.tracing.timeline import lines

    print_lines(lines(change))
