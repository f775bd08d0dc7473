"""Reads a Redis URL: where the server is, who we are to it, and how TLS is set up."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import parse_url

_KNOWN = frozenset(
    {
        *("host", "port", "path", "db", "username", "password", "connection_class"),
        *("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
    }
)


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """One Redis server; `str()` of it shows no credentials."""

    host: str = ""
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisTarget:
        """Reads redis://, rediss:// and unix:// URLs as redis-py does; raises ValueError saying what is wrong."""
        try:
            given: dict[str, Any] = dict(parse_url(url))
        except ValueError as error:
            raise ValueError(f"not a Redis URL: {error}") from None
        unknown = sorted(given.keys() - _KNOWN)
        if unknown:
            raise ValueError(f"unknown options in the Redis URL: {', '.join(unknown)}")
        return cls(
            host=given.get("host", "" if "path" in given else "localhost"),
            port=given.get("port", 6379),
            path=given.get("path", ""),
            db=given.get("db", 0),
            username=given.get("username", ""),
            password=given.get("password", ""),
            tls=_tls(given) if url.startswith("rediss://") else None,
        )

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def _tls(given: dict[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("ssl_ca_certs"))
        if given.get("ssl_certfile"):
            context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"))
    except OSError as error:
        raise ValueError(f"the TLS files of the Redis URL cannot be used: {error}") from None
    if given.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
