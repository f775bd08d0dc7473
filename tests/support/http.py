"""A tiny HTTP/1.1 client: sends the path as it is given, and any Host or SNI to any port on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]]
_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Returns the first value of a header, None where it is absent."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def all(self, name: str) -> list[str]:
        """Returns every value of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One kept-alive connection; a `ConnectionError` says that the peer closed it before a whole response came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._kept = True

    @staticmethod
    async def to(
        port: int = 0,
        *,
        address: str = "127.0.0.1",
        unix_path: str | None = None,
        tls: ssl.SSLContext | None = None,
        sni: str | None = None,
    ) -> Connection:
        """Connects; with `tls`, asks for and checks the name `sni`."""
        if unix_path is not None:
            return Connection(*await asyncio.open_unix_connection(unix_path, limit=_LIMIT))
        name = (sni or address) if tls is not None else None
        streams = await asyncio.open_connection(address, port, ssl=tls, server_hostname=name, limit=_LIMIT)
        return Connection(*streams)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What the server's certificate says (as `ssl.getpeercert` has it), None without TLS."""
        return self._writer.get_extra_info("peercert")

    @property
    def protocol(self) -> str | None:
        """What ALPN chose, None without TLS or where nothing was offered."""
        tls = self._writer.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol() if tls is not None else None

    @property
    def local_port(self) -> int:
        """The client's own port."""
        return int(self._writer.get_extra_info("sockname")[1])

    async def request(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "example.com",
        headers: HeaderInput = (),
        body: bytes = b"",
        within_s: float = 10.0,
    ) -> Response:
        """Sends one request and returns the final response (interim ones are passed over)."""
        pairs = list(dict[str, str](headers).items() if isinstance(headers, Mapping) else headers)
        framed = any(name.lower() in ("content-length", "transfer-encoding") for name, _ in pairs)
        if not framed and (body or method in ("POST", "PUT", "PATCH")):
            pairs.append(("content-length", str(len(body))))
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in pairs)]
        try:
            self._writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            return await asyncio.wait_for(self._response(method), within_s)
        except asyncio.IncompleteReadError as fault:
            self.close()
            raise ConnectionResetError("the peer closed the connection before a whole response came") from fault
        except BaseException:
            self.close()
            raise

    @property
    def open(self) -> bool:
        """Whether another request may be sent: neither side has announced the end, nor has the peer hung up."""
        return self._kept and not self._reader.at_eof()

    def close(self) -> None:
        self._kept = False
        self._writer.close()

    async def _response(self, method: str) -> Response:
        while True:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head[:-4].split("\r\n")
            status = int(line.split(" ", 2)[1])
            headers = tuple((name.lower(), value.strip()) for name, _, value in (f.partition(":") for f in fields))
            if status == 101 or status >= 200:
                break
        body = b"" if method == "HEAD" or status in (101, 204, 304) else await self._body(dict(headers))
        if dict(headers).get("connection", "").lower() == "close":
            self.close()
        return Response(status, headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return bytes(body)
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        self._kept = False
        return await self._reader.read()


async def fetch(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "example.com",
    headers: HeaderInput = (),
    body: bytes = b"",
    address: str = "127.0.0.1",
    unix_path: str | None = None,
    tls: ssl.SSLContext | None = None,
    sni: str | None = None,
    within_s: float = 10.0,
) -> Response:
    """Sends one request over a connection of its own; with `tls` the SNI is the host, unless `sni` says otherwise."""
    async with asyncio.timeout(within_s):
        name = sni if sni is not None else host.partition(":")[0]
        async with await Connection.to(port, address=address, unix_path=unix_path, tls=tls, sni=name) as connection:
            return await connection.request(
                path, method=method, host=host, headers=headers, body=body, within_s=within_s
            )
