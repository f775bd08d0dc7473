"""A small HTTP/1.1 backend that answers what it was asked: the upstream of the examples and of the tests.

As a program it sends datagrams back, too, to the same address and port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, cast

HEAD_LIMIT_BYTES: Final = 64 * 1024
BODY_LIMIT_BYTES: Final = 4 * 1024 * 1024

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request; header names are in lower case, in the order in which they came."""

    method: str
    path: str
    headers: Headers
    body: bytes = b""
    version: str = "HTTP/1.1"

    def header(self, name: str) -> str | None:
        """Returns the first value of a header, None where it is absent."""
        return next((value for key, value in self.headers if key == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, `delay_s` seconds later; with `reset` the connection is cut instead."""

    status: int = 200
    body: bytes = b""
    headers: Headers = ()
    delay_s: float = 0.0
    reset: bool = False


Responder = Callable[[Request], Answer]


def echo(name: str) -> Responder:
    """Returns a responder that describes each request as JSON, signed with `name`."""

    def respond(request: Request) -> Answer:
        headers: dict[str, str] = {}
        for key, value in request.headers:
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        told = {
            "name": name,
            "method": request.method,
            "path": request.path,
            "headers": headers,
            "body": request.body.decode("utf-8", "replace"),
        }
        return Answer(body=json.dumps(told, indent=2).encode() + b"\n", headers=(("content-type", "application/json"),))

    return respond


async def serve(
    respond: Responder,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix_path: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> asyncio.Server:
    """Starts a server on `host:port`, or on a Unix socket; the caller closes it."""
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.Protocol:
        return HttpProtocol(respond)

    if unix_path is not None:
        return await loop.create_unix_server(protocol, unix_path, ssl=tls)
    return await loop.create_server(protocol, host, port, ssl=tls, backlog=1024)


class DatagramProtocol(asyncio.DatagramProtocol):
    """Sends each datagram back, signed with `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(f"{self._name}: ".encode() + data, addr)


class BadRequestError(Exception):
    """The peer does not speak HTTP/1.1 as this server understands it; the argument is the status to answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HttpProtocol(asyncio.Protocol):
    """One connection: keep-alive, pipelined requests answered in order, sizes bounded."""

    def __init__(self, respond: Responder) -> None:
        self._respond = respond
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told_to_continue = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, for uvloop's transports are no asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._timer is None:
            self._answer_what_is_whole()
        elif self._transport is not None and len(self._buffer) > HEAD_LIMIT_BYTES:
            self._transport.pause_reading()

    def _answer_what_is_whole(self) -> None:
        while self._transport is not None and self._timer is None:
            try:
                parsed = parse_request(self._buffer)
            except BadRequestError as fault:
                self._write(Answer(fault.status), Request("GET", "/", (("connection", "close"),)))
                return
            if parsed is None:
                self._continue_if_expected()
                return
            request, length = parsed
            del self._buffer[:length]
            self._told_to_continue = False
            answer = self._respond(request)
            if answer.delay_s > 0:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(answer.delay_s, self._write_late, answer, request)
            else:
                self._write(answer, request)

    def _write_late(self, answer: Answer, request: Request) -> None:
        self._timer = None
        self._write(answer, request)
        if self._transport is not None:
            self._transport.resume_reading()
            self._answer_what_is_whole()

    def _continue_if_expected(self) -> None:
        if self._transport is None or self._told_to_continue or b"\r\n\r\n" not in self._buffer:
            return
        if b"100-continue" in bytes(self._buffer[:HEAD_LIMIT_BYTES]).lower():
            self._told_to_continue = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _write(self, answer: Answer, request: Request) -> None:
        transport = self._transport
        if transport is None:
            return
        if answer.reset:
            transport.abort()
            return
        last = (request.header("connection") or "").lower() == "close" or request.version == "HTTP/1.0"
        transport.write(render(answer, with_body=request.method != "HEAD", last=last))
        if last:
            transport.close()
            self._transport = None


def parse_request(data: bytearray) -> tuple[Request, int] | None:
    """Reads one request from the front of `data`.

    Returns it with the number of bytes that it took, or None while it is not whole; raises BadRequestError.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT_BYTES + 4)
    if end < 0:
        if len(data) > HEAD_LIMIT_BYTES:
            raise BadRequestError(431)
        return None
    line, *fields = bytes(data[:end]).decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError(400)
    pairs = (field.partition(":") for field in fields)
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    body = _parse_body(data, end + 4, dict(headers))
    if body is None:
        return None
    return Request(words[0], words[1], headers, body[0], words[2]), body[1]


def _parse_body(data: bytearray, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _parse_chunks(data, start)
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise BadRequestError(400)
    if int(length) > BODY_LIMIT_BYTES:
        raise BadRequestError(413)
    end = start + int(length)
    return (bytes(data[start:end]), end) if len(data) >= end else None


def _parse_chunks(data: bytearray, position: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while (line_end := data.find(b"\r\n", position)) >= 0:
        try:
            size = int(bytes(data[position:line_end]).split(b";")[0], 16)
        except ValueError:
            raise BadRequestError(400) from None
        if size < 0 or len(body) + size > BODY_LIMIT_BYTES:
            raise BadRequestError(413)
        position = line_end + 2
        if size == 0:
            return _after_trailers(data, position, bytes(body))
        if len(data) < position + size + 2:
            return None
        body += data[position : position + size]
        position += size + 2
    return None


def _after_trailers(data: bytearray, position: int, body: bytes) -> tuple[bytes, int] | None:
    while (line_end := data.find(b"\r\n", position)) >= 0:
        if line_end == position:
            return body, line_end + 2
        if line_end - position > HEAD_LIMIT_BYTES:
            raise BadRequestError(431)
        position = line_end + 2
    return None


def render(answer: Answer, *, with_body: bool, last: bool) -> bytes:
    """Returns the bytes of a response; without its body for HEAD, closing the connection where it is the last."""
    try:
        reason = HTTPStatus(answer.status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in answer.headers)]
    bodiless = answer.status in (204, 304) or answer.status < 200
    if not bodiless:
        lines.append(f"content-length: {len(answer.body)}")
    if last:
        lines.append("connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head + answer.body if with_body and not bodiless else head


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the echo backend until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dragoman.echo", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT|unix:PATH", help="where to serve")
    parser.add_argument("--name", default="echo", help="the name in every answer")
    options = parser.parse_args(argv)
    try:
        asyncio.run(_run(options.listen, options.name))
    except (OSError, ValueError) as fault:
        sys.stderr.write(f"echo: cannot listen on {options.listen}: {fault}\n")
        return 1
    return 0


async def _run(listen: str, name: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    path = listen.removeprefix("unix:") if listen.startswith("unix:") else None
    if path is not None:
        _remove_stale_socket(Path(path))
        server = await serve(echo(name), unix_path=path)
    else:
        host, _, port = listen.rpartition(":")
        address = host.strip("[]") or "127.0.0.1", int(port)
        server = await serve(echo(name), host=address[0], port=address[1])
        await loop.create_datagram_endpoint(lambda: DatagramProtocol(name), local_addr=address)
    await stop.wait()
    # Not waited for: from Python 3.12 on that lasts until every kept-alive connection is gone.
    server.close()
    if path is not None:
        _remove_stale_socket(Path(path))


def _remove_stale_socket(path: Path) -> None:
    # A killed predecessor leaves its socket behind, and binding to it would fail for ever; nothing else is removed.
    if path.exists() and stat.S_ISSOCK(os.stat(path).st_mode):
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
