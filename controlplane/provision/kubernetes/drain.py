"""The process beside an Envoy in its pod that lets clients go before Envoy ends: `python -m` this module.

When the pod is to end, the kubelet sends SIGTERM to this process, and at the same time calls the preStop hook of
Envoy's container, which is a request to this process. The request is answered when the clients have gone; until then
the kubelet leaves Envoy alone. The request itself starts nothing, as anybody in the cluster may send it.

Nothing but the standard library's event loop is imported: this runs beside every Envoy.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from typing import Final

PATH: Final = "/drained"
# Of every listener in whole (not of each worker), but for those that clients have nothing to do with.
_CONNECTIONS: Final = re.compile(
    rb"^listener\.(?!admin\.|dragoman_ready\.)(?!.*\.worker_)(.+)\.downstream_cx_active: ([0-9]+)", re.MULTILINE
)
_ASK_EVERY_S: Final = 0.25
_ANSWER_WITHIN_S: Final = 5.0
# A hook that comes while nothing tells this process to end: Envoy's container alone is restarted.
_ALONE_S: Final = 5.0
_WAITING: Final = 256
_MAX_BODY: Final = 8 * 1024 * 1024


class NoEnvoyError(Exception):
    """The admin endpoint does not answer: Envoy is not there."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Envoy's admin endpoint."""

    host: str
    port: int

    async def ask(self, method: str, path: str) -> bytes:
        """Returns the body of an answer. Raises NoEnvoyError where there is none, or one that is not a success."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(f"{method} {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
                    answer = await _read_all(reader)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise NoEnvoyError(str(error) or "no answer in time") from error
        head, _, body = answer.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        if len(words) < 2 or words[1] != b"200":
            raise NoEnvoyError(f"{path} was answered with {head[:80]!r}")
        return _without_chunks(body) if b"transfer-encoding: chunked" in head.lower() else body

    async def connections(self) -> int:
        """Returns how many connections clients have."""
        body = await self.ask("GET", "/stats?filter=downstream_cx_active")
        return sum(int(count) for _, count in _CONNECTIONS.findall(body))


@dataclass(slots=True)
class Drain:
    """Drains for `at_least_s`, and until no client is connected, at most for `timeout_s`."""

    admin: Admin
    timeout_s: float
    at_least_s: float
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: int = 0

    async def run(self) -> str:
        """Drains, and returns in a sentence how it ended."""
        self.begun.set()
        start = time.monotonic()
        try:
            # Every answer now tells its client to go; new connections are accepted all the same, as load balancers
            # need a while until they send no more.
            await self.admin.ask("POST", "/drain_listeners?graceful&skip_exit")
            await asyncio.sleep(self.at_least_s)
            # From here on, who asks Envoy itself is told that it serves no more.
            await self.admin.ask("POST", "/healthcheck/fail")
            left = await self._clients(start + self.timeout_s)
        except NoEnvoyError as error:
            return f"Envoy does not answer: {error}"
        finally:
            self.ended.set()
        took = f"after {time.monotonic() - start:.1f} s"
        return f"{left} connections are cut {took}" if left else f"all clients have gone {took}"

    async def _clients(self, deadline: float) -> int:
        """Returns 0 when no client is connected, or how many there are at the deadline."""
        while (left := await self.admin.connections()) and time.monotonic() < deadline:  # noqa: ASYNC110 (not told)
            await asyncio.sleep(_ASK_EVERY_S)
        return left

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, when the clients have gone if it is the hook's."""
        self._waiting += 1
        try:
            line = await self._request(reader)
            if self._waiting > _WAITING:
                status = "503 Service Unavailable"
            elif line[:1] != [b"GET"] or line[1:2] != [PATH.encode()]:
                status = "404 Not Found"
            else:
                status = "200 OK"
                await self._until_ended()
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # Whoever asked has gone, or asks for nothing that there is.
        finally:
            self._waiting -= 1
            writer.close()

    @staticmethod
    async def _request(reader: asyncio.StreamReader) -> list[bytes]:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
        return head.partition(b"\r\n")[0].split(b" ")

    async def _until_ended(self) -> None:
        try:
            await asyncio.wait_for(self.begun.wait(), _ALONE_S)
        except TimeoutError:
            return
        await self.ended.wait()


async def serve(options: Namespace) -> None:
    """Waits for SIGTERM, drains, and ends when the hook has its answer."""
    host, _, port = options.admin.rpartition(":")
    drain = Drain(Admin(host, int(port)), timeout_s=options.timeout, at_least_s=options.at_least)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    server = await asyncio.start_server(drain.answer, None, options.port, limit=8192)
    async with server:
        await asked.wait()
        print(f"drain: {await drain.run()}", file=sys.stderr, flush=True)  # noqa: T201 (the log of a process alone)
        await asyncio.sleep(0.5)


def main() -> None:
    """Reads the command line and runs."""
    parser = ArgumentParser(description="Lets the clients of an Envoy go before it ends.")
    parser.add_argument("--admin", default="127.0.0.1:9901", help="Envoy's admin endpoint")
    parser.add_argument("--port", type=int, required=True, help="where the preStop hook asks")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds until connections are cut")
    parser.add_argument("--at-least", type=float, default=10.0, help="seconds to accept new connections for")
    asyncio.run(serve(parser.parse_args()))


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < _MAX_BODY and (part := await reader.read(65536)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _without_chunks(body: bytes) -> bytes:
    parts: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        if length == 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


if __name__ == "__main__":
    main()
