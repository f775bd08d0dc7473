"""How commands ask a control plane that runs, and how they print what they have to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from dragoman.cli.errors import CommandError

_STYLES: Mapping[str, str] = {"title": "bold", "plain": "", "good": "green", "bad": "red", "dim": "dim"}
_INDENT = "  "
_TIMEOUT_S = 30.0
_MAX_BYTES = 256 * 1024 * 1024


class Line(Protocol):
    """A line of text: indented by `depth` steps, in one of a few styles."""

    @property
    def depth(self) -> int: ...
    @property
    def style(self) -> str: ...
    @property
    def text(self) -> str: ...


def get(server: str, path: str) -> bytes:
    """Returns what the HTTP port of a control plane answers; raises CommandError with what is wrong."""
    if urlsplit(server).scheme not in ("http", "https"):
        raise CommandError(f"--server {server}: expected http://HOST:PORT")
    try:
        # Never by a proxy: it is this machine, or a forwarded port.
        with build_opener(ProxyHandler({})).open(server.rstrip("/") + path, timeout=_TIMEOUT_S) as answer:
            return answer.read(_MAX_BYTES)
    except HTTPError as error:
        raise CommandError(f"{server} answered {error.code}: {error.read(1000).decode(errors='replace')}") from None
    except (URLError, OSError) as error:
        raise CommandError(f"{server} cannot be asked: {getattr(error, 'reason', error)}") from None


def not_understood(server: str) -> CommandError:
    """Returns what is raised where the answer is not one."""
    return CommandError(f"{server} does not answer as a control plane of this version would")


def print_lines(lines: Iterable[Line]) -> None:
    """Prints lines, in colour where they are for a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(_INDENT * line.depth + line.text, style=_STYLES[line.style]), soft_wrap=True)
