"""A primary, its replicas, and the Sentinels that watch them: real processes, any of which may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import redis.asyncio as redis_client

from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.redis import RedisServer, redis_binary
from tests.support.waiting import until

SERVICE = "counters"
_REPLICATION = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-timeout", "5")


class Sentinel:
    """One Sentinel."""

    def __init__(
        self, primary_port: int, *, quorum: int, password: str | None = None, server_password: str | None = None
    ) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="dgm-"))
        self.password = password
        self._process: ChildProcess | None = None
        lines = [
            *("bind 127.0.0.1", f"port {self.port}", f"dir {self.folder}"),
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 3000",
            *((f"requirepass {password}", f"sentinel sentinel-pass {password}") if password else ()),
            *((f"sentinel auth-pass {SERVICE} {server_password}",) if server_password else ()),
        ]
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def client(self) -> redis_client.Redis:
        """Returns a client of the Sentinel itself."""
        return redis_client.Redis(host="127.0.0.1", port=self.port, password=self.password)

    async def start(self) -> None:
        """Starts the Sentinel, also again: it remembers what it knew."""
        command = [redis_binary(), str(self.folder / "sentinel.conf"), "--sentinel"]
        self._process = ChildProcess(command, log=self.folder / "sentinel.log")

        async def listens() -> bool:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True

        await until(listens, what="the Sentinel to listen", detail=self._process.tail)

    async def kill(self) -> None:
        """Kills the Sentinel."""
        if self._process is not None:
            await self._process.kill()
            self._process = None

    def pause(self) -> None:
        """Freezes the Sentinel: it takes connections and answers nothing."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    async def remove(self) -> None:
        """Kills the Sentinel and deletes its files."""
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def others(self) -> tuple[int, int]:
        """Returns how many other Sentinels, and how many replicas, it knows."""
        async with self.client() as client:
            known: Any = await client.sentinel_master(SERVICE)
        return int(known["num-other-sentinels"]), int(known["num-slaves"])


class SentinelSet:
    """`async with SentinelSet() as given`: all is up, knows of one another, and the replicas are in step."""

    def __init__(
        self,
        *,
        sentinels: int = 3,
        replicas: int = 1,
        password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        auth = ("--masterauth", password) if password else ()
        first = RedisServer(*_REPLICATION, *auth, password=password)
        follow = ("--replicaof", "127.0.0.1", str(first.port))
        self.servers = [
            first,
            *(RedisServer(*_REPLICATION, *auth, *follow, password=password) for _ in range(replicas)),
        ]
        quorum = sentinels // 2 + 1
        self.sentinels = [
            Sentinel(first.port, quorum=quorum, password=sentinel_password, server_password=password)
            for _ in range(sentinels)
        ]
        self._password, self._sentinel_password = password, sentinel_password
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The URL of the store."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        credentials = f":{self._password}@" if self._password else ""
        options = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis+sentinel://{credentials}{hosts}/{SERVICE}{options}"

    async def __aenter__(self) -> SentinelSet:
        try:
            for server in self.servers:
                await self._stack.enter_async_context(server)
            await until(self._in_step, what="the replicas to be in step")
            for sentinel in self.sentinels:
                self._stack.push_async_callback(sentinel.remove)
                await sentinel.start()
            await until(self._acquainted, what="the Sentinels to know all", within_s=15)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, fault, trace)

    async def primary(self, *, seen_by: int = 0) -> RedisServer:
        """Returns the server that a Sentinel holds for the primary."""
        async with self.sentinels[seen_by].client() as client:
            address: Any = await client.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if server.port == int(address[1]))

    async def fail_over(self, *, by: int = 0) -> None:
        """Asks a Sentinel to make another server the primary, as an operator does."""
        async with self.sentinels[by].client() as client:
            await client.execute_command("SENTINEL", "FAILOVER", SERVICE)

    async def _in_step(self) -> bool:
        async with redis_client.from_url(self.servers[0].url) as client:
            known = await client.info("replication")
        states = [known.get(f"slave{index}", {}).get("state") for index in range(len(self.servers) - 1)]
        return all(state == "online" for state in states)

    async def _acquainted(self) -> bool:
        wanted = len(self.sentinels) - 1, len(self.servers) - 1
        return all([await sentinel.others() == wanted for sentinel in self.sentinels])
