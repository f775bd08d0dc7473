"""Runs the arguments of a `curl` line without curl: the few options that the examples use."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.http import Response, fetch

_SILENT = {"-i", "-s", "-k", "-v"}
_IGNORED_WITH_VALUE = {"-o", "-w"}


@dataclass(frozen=True, slots=True)
class CurlLine:
    """What a line asks for."""

    urls: tuple[str, ...]
    method: str
    headers: tuple[tuple[str, str], ...]
    host: str | None
    resolve: dict[str, str]

    async def run(self) -> list[Response]:
        """Sends the requests one after the other; certificates are not checked."""
        return [await self._send(url) for url in self.urls]

    async def _send(self, url: str) -> Response:
        parts = urlsplit(url)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return await fetch(
            port,
            (parts.path or "/") + (f"?{parts.query}" if "?" in url else ""),
            method=self.method,
            host=self.host or parts.netloc,
            headers=self.headers,
            address=self.resolve.get(f"{parts.hostname}:{port}", parts.hostname),
            tls=_unchecked() if parts.scheme == "https" else None,
            sni=parts.hostname,
        )


def parse_curl(arguments: Sequence[str]) -> CurlLine:
    """Reads the arguments of curl, the URL last; raises ValueError for an option that it does not know."""
    method, host, headers, resolve = "GET", None, list[tuple[str, str]](), dict[str, str]()
    rest = iter(arguments[:-1])
    for option in rest:
        if option in _SILENT:
            continue
        value = next(rest)
        if option == "-X":
            method = value
        elif option == "-H":
            name, _, text = value.partition(":")
            if name.lower() == "host":
                host = text.strip()
            else:
                headers.append((name.lower(), text.strip()))
        elif option == "--resolve":
            name, port, address = value.split(":", 2)
            resolve[f"{name}:{port}"] = address
        elif option not in _IGNORED_WITH_VALUE:
            raise ValueError(f"{option} is not understood here")
    return CurlLine(tuple(_expand(arguments[-1])), method, tuple(headers), host, resolve)


def _expand(url: str) -> list[str]:
    """Expands one range as curl does: `/?[1-3]` is three URLs."""
    found = re.search(r"\[(\d+)-(\d+)\]", url)
    if found is None:
        return [url]
    numbers = range(int(found.group(1)), int(found.group(2)) + 1)
    return [f"{url[: found.start()]}{number}{url[found.end() :]}" for number in numbers]


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
