# pyright: standard
"""Where statsd lines go, and how a name is rewritten on its way: what settings say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dragoman.grpc_worker import Address

_TAG: Final = re.compile(r"([^:=,|#\s\x00-\x1f]+):([^,\x00-\x1f]*)")


class Dialect(StrEnum):
    """How lines are sent, and how tags are written."""

    UDP = "udp"
    """Tags are parts of the name, as gostats writes them: `name.__tag=value`."""
    TCP = "tcp"
    """The same over TCP."""
    DOGSTATSD = "dogstatsd"
    """Over UDP, with tags as Datadog's: `name:1|c|#tag:value`."""


@dataclass(frozen=True, slots=True)
class StatsdTarget:
    """A collector."""

    dialect: Dialect
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads `udp://HOST:PORT`, `tcp://HOST:PORT` or `dogstatsd://HOST:PORT`; raises ValueError."""
        scheme, separator, place = url.partition("://")
        if not separator or scheme not in tuple(Dialect):
            raise ValueError("expected udp://, tcp:// or dogstatsd:// and HOST:PORT")
        address = Address.parse(place)
        if address.is_unix or not address.host or not 0 < address.port < 65536:
            raise ValueError(f"expected {scheme}://HOST:PORT")
        return cls(Dialect(scheme), address.host, address.port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.dialect}://{host}:{self.port}"


def tags_of(texts: tuple[str, ...]) -> dict[str, str]:
    """Reads `name:value` each, as envoyproxy/ratelimit's EXTRA_TAGS; raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        match = _TAG.fullmatch(text)
        if match is None:
            raise ValueError(f"{text}: expected name:value")
        found[match[1]] = match[2]
    return found


class Rewrite(BaseModel):
    """A name that `pattern` (RE2) is found in becomes `name` with `tags`, `$1` being what its first group matched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str = Field(min_length=1, max_length=4096)
    name: str = Field(min_length=1, max_length=1024)
    tags: dict[str, str] = Field(default_factory=dict[str, str])

    @field_validator("pattern")
    @classmethod
    def _is_expression(cls, pattern: str) -> str:
        compiled(pattern)
        return pattern


def compiled(pattern: str) -> Any:
    """Returns a regular expression of RE2, as envoyproxy/ratelimit's are; raises ValueError for what is none."""
    import re2  # only here: few rewrite names

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
