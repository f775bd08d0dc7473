"""A server that takes the place of Redis and misbehaves: silent, garbled, out of step, or loading for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.ports import free_port

Answer = Callable[[bytes], bytes]
"""From a command's name (in capitals; with the subcommand) to the bytes that are sent; nothing for no answer."""
_CONTAINERS = (b"CLUSTER", b"SCRIPT")


def polite(name: bytes) -> bytes:
    """Answers as a Redis does whose counters are all at one."""
    known = {
        b"SCRIPT LOAD": b"$40\r\n" + b"a" * 40 + b"\r\n",
        b"PING": b"+PONG\r\n",
        b"ROLE": b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n",
    }
    return known.get(name, b":1\r\n")


class Impostor:
    """`async with Impostor(answer) as server`: speaks to any number of clients at `server.url`."""

    def __init__(self, answer: Answer = polite) -> None:
        self.port = free_port()
        self.answer = answer
        self.connections = 0
        """How many have been made."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                words = await _command(reader)
                name = b" ".join(words[: 2 if words[0].upper() in _CONTAINERS else 1]).upper()
                writer.write(self.answer(name))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError, ValueError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words: list[bytes] = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
