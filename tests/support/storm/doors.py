"""The ways in: a listener's port, with or without TLS, and connections to it of any protocol."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from tests.support.certificates import Authority
from tests.support.storm.judge import Ask, Door
from tests.support.storm.lines import Http1Line, Http2Line, Line, Reply, alpn

Protocol = Literal["HTTP/1.1", "HTTP/2"]
DEFAULT_SNI: Final = "any.storm.example"
_TOLD: Final = ("x-backend", "x-mark")


@dataclass(frozen=True, slots=True)
class Doors:
    """Ports by door; those in TLS show certificates of the authority."""

    ports: Mapping[Door, int]
    tls: Mapping[Protocol, ssl.SSLContext]

    @staticmethod
    def of(http: int, https: int, authority: Authority) -> Doors:
        """Returns the two doors of a Gateway."""
        tls: dict[Protocol, ssl.SSLContext] = {
            "HTTP/1.1": alpn(authority.client_context(), "http/1.1"),
            "HTTP/2": alpn(authority.client_context(), "h2"),
        }
        return Doors({"http": http, "https": https}, tls)

    def port(self, door: Door, ask: Ask | None = None) -> int:
        """Returns where a request goes."""
        return ask.port if ask is not None and ask.port is not None else self.ports[door]

    async def connect(self, door: Door, protocol: Protocol = "HTTP/1.1", ask: Ask | None = None) -> Line:
        """Opens a connection; raises OSError where that fails."""
        tls = self.tls[protocol] if door == "https" else None
        sni = ask.sni if ask is not None and ask.sni is not None else DEFAULT_SNI
        kind = Http2Line if protocol == "HTTP/2" else Http1Line
        return await kind.to(self.port(door, ask), tls=tls, sni=sni if tls is not None else None)


def answer_of(ask: Ask, reply: Reply) -> str:
    """Returns a reply in short: its status, the backend, the mark of a filter, the path where that was changed.

    Of a redirect it tells the host that it goes to.
    """
    said = [str(reply.status), *(reply.headers[name] for name in _TOLD if reply.headers.get(name))]
    path = reply.headers.get("x-path", ask.path)
    if path != ask.path:
        said.append(path)
    location = urlsplit(reply.headers.get("location", "")).hostname
    return " ".join([*said, location] if location else said)
