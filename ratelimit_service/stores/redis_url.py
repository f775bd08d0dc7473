"""Reads the URL of a store: a Redis server, one that Sentinels watch, or a cluster; who we are to it, and TLS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio.connection import parse_url

from ratelimit_service.stores.redis_tls import RedisTls, TlsOptions

_SERVER = frozenset(
    {
        *("host", "port", "path", "db", "username", "password", "password_file", "connection_class"),
        *("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"),
    }
)
_SENTINEL = frozenset({"sentinel_username", "sentinel_password", "sentinel_password_file", "sentinel_ssl"})
_MAX_PASSWORD_BYTES = 4096


class Kind(StrEnum):
    """How a store is deployed."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": Kind.SINGLE,
    "rediss": Kind.SINGLE,
    "unix": Kind.SINGLE,
    **{f"redis{tls}+{kind}": kind for kind in (Kind.SENTINEL, Kind.CLUSTER) for tls in ("", "s")},
}


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """One Redis server, and who we are to it; `str()` of it shows no credentials."""

    host: str = ""
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    password_file: str = ""
    tls: RedisTls | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisTarget:
        """Reads redis://, rediss:// and unix:// URLs as redis-py does; raises ValueError saying what is wrong."""
        return _target(_parsed(url, _SERVER))

    def at(self, host: str, port: int) -> RedisTarget:
        """Returns another server to which we are the same."""
        return replace(self, host=host, port=port, path="")

    def secret(self) -> str:
        """Returns the password, as its file has it now; raises OSError when that cannot be read."""
        if not self.password_file:
            return self.password
        with Path(self.password_file).open("rb") as file:
            return file.read(_MAX_PASSWORD_BYTES).decode("utf-8", "replace").strip()

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A store. `server` is its server; with Sentinels or in a cluster, what all servers have in common."""

    kind: Kind
    server: RedisTarget
    seeds: tuple[RedisTarget, ...] = ()
    """The Sentinels, or some nodes of the cluster."""
    service: str = ""
    """What the Sentinels call the primary."""

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Reads a URL of any kind; raises ValueError saying what is wrong, and nothing of what the URL says."""
        kind = _SCHEMES.get(url.partition("://")[0])
        if kind is None:
            raise ValueError(f"a Redis URL begins with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
        if kind is Kind.SINGLE:
            return cls(kind, RedisTarget.parse(url))
        parts = _split(url)
        names = parts.netloc.rpartition("@")[2].split(",")
        # Read as the URL of one server, for what is the same of all.
        alone = f"{parts.scheme.partition('+')[0]}://{parts.netloc.rpartition('@')[0]}@{names[0]}/?{parts.query}"
        if kind is Kind.CLUSTER:
            if parts.path.strip("/") not in ("", "0"):
                raise ValueError("a Redis Cluster has no database but 0")
            server = _target(_parsed(alone, _SERVER))
            return cls(kind, server, tuple(server.at(*_address(name, 6379)) for name in names))
        service, _, db = unquote(parts.path).strip("/").partition("/")
        if not service:
            raise ValueError("the Redis URL names no service after the Sentinels: redis+sentinel://HOST:PORT/SERVICE")
        if not (db or "0").isdigit():
            raise ValueError("what follows the service in the Redis URL is not the number of a database")
        given = _parsed(alone, _SERVER | _SENTINEL)
        server = replace(_target(given), db=int(db or 0))
        sentinel = RedisTarget(
            username=given.get("sentinel_username", ""),
            password=given.get("sentinel_password", ""),
            password_file=given.get("sentinel_password_file", ""),
            tls=_tls(given) if _sentinel_tls(given, default=server.tls is not None) else None,
        )
        return cls(kind, server, tuple(sentinel.at(*_address(name, 26379)) for name in names), service)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("not a Redis URL") from None


def _parsed(url: str, known: frozenset[str]) -> dict[str, Any]:
    # What redis-py says of a wrong URL may show parts of it, of the password for one.
    try:
        given: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        hint = "special characters of a password are to be percent-encoded"
        raise ValueError(f"not a Redis URL, or an option in it has a value of the wrong kind ({hint})") from None
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ValueError(f"unknown options in the Redis URL: {', '.join(unknown)}")
    if given.get("password") and given.get("password_file"):
        raise ValueError("the Redis URL has a password and a password_file")
    return given | {"tls": url.startswith("rediss")}


def _target(given: Mapping[str, Any]) -> RedisTarget:
    return RedisTarget(
        host=given.get("host", "" if "path" in given else "localhost"),
        port=given.get("port", 6379),
        path=given.get("path", ""),
        db=given.get("db", 0),
        username=given.get("username", ""),
        password=given.get("password", ""),
        password_file=given.get("password_file", ""),
        tls=_tls(given) if given["tls"] else None,
    )


def _tls(given: Mapping[str, Any]) -> RedisTls:
    options = TlsOptions(
        ca=given.get("ssl_ca_certs", ""),
        certificate=given.get("ssl_certfile", ""),
        private_key=given.get("ssl_keyfile", ""),
        verify=given.get("ssl_cert_reqs") != "none",
        check_hostname=given.get("ssl_check_hostname", True),
    )
    return RedisTls(options)


def _sentinel_tls(given: Mapping[str, Any], *, default: bool) -> bool:
    text = given.get("sentinel_ssl")
    if text not in (None, "true", "false"):
        raise ValueError("sentinel_ssl in the Redis URL is neither true nor false")
    return default if text is None else text == "true"


def _address(text: str, port: int) -> tuple[str, int]:
    found = _parsed(f"redis://{text}", frozenset({"host", "port"}))
    if not found.get("host"):
        raise ValueError("the Redis URL has an address without a host")
    return found["host"], found.get("port", port)
