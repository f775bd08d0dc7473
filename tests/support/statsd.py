"""A statsd collector, over UDP or TCP: adds up what comes in."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from dragoman.metrics import CallMetrics
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.statsd.counts import Counts
from ratelimit_service.statsd.names import Writer
from ratelimit_service.statsd.target import Dialect


def counts_of(
    stats: StatsRegistry, *, calls: CallMetrics | None = None, others: Mapping[str, int] | None = None
) -> Counts:
    """Returns what is told of these counts."""
    seconds = (calls or CallMetrics()).seconds
    return Counts(stats, Writer(Dialect.UDP), others=lambda: (others or {}).items(), calls=lambda: seconds)


class Collector(asyncio.DatagramProtocol):
    """`counters` and `times` (how many) by name, tags and all; tags of Datadog in alphabetical order."""

    def __init__(self, *, tcp: bool = False, port: int = 0, counters: Counter[str] | None = None) -> None:
        self._tcp = tcp
        self.port = port
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.times: Counter[str] = Counter()
        self.values: dict[str, list[float]] = {}
        self.datagrams: list[bytes] = []
        self.garbled: list[bytes] = []
        self.connections = 0
        self._server: asyncio.AbstractServer | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._tcp:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", self.port))
            self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.datagrams.append(data)
        for line in data.splitlines():
            self._take(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            async for line in reader:
                self._take(line.rstrip(b"\n"))
        self._writers.discard(writer)
        writer.close()

    def _take(self, line: bytes) -> None:
        try:
            name, _, told = line.decode().partition(":")
            value, kind, *more = told.split("|")
            number = float(value)
        except ValueError:
            self.garbled.append(line)
            return
        tags = [tag for part in more if part.startswith("#") for tag in part[1:].split(",")]
        rate = next((float(part[1:]) for part in more if part.startswith("@")), 1.0)
        named = f"{name}|#{','.join(sorted(tags))}" if tags else name
        if kind == "c":
            self.counters[named] += int(number)
        elif kind == "ms":
            self.times[named] += round(1 / rate)
            self.values.setdefault(named, []).append(number)
