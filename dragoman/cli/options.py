"""What options of several commands mean."""

from __future__ import annotations

from pathlib import Path

from dragoman.cli.errors import CommandError
from dragoman.cli.settings import ServeSettings


def state_file(settings: ServeSettings) -> Path | None:
    """Returns where the last good version of each object is kept."""
    return None if settings.state is None else settings.state / "accepted.db"


def nameserver(text: str) -> tuple[str, int]:
    """Reads HOST or HOST:PORT of a DNS server."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text.strip("[]"), 53
    if not port.isdecimal():
        raise CommandError(f"--dns {text}: expected HOST:PORT")
    return host.strip("[]"), int(port)
