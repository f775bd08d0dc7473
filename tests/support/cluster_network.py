"""The network in which a test cluster lives: commands, processes and connections inside its network namespace."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.http import Connection, HeaderInput, Response
from tests.support.process import ChildProcess

_CLONE_NEWNET = 0x40000000
_LIMIT = 8 * 1024 * 1024


class Network:
    """What is reachable from the cluster's node; without a namespace, what is reachable from this machine."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self._inside: ThreadPoolExecutor | None = None

    def command(self, command: Sequence[str]) -> list[str]:
        """Returns the command line that runs a command inside."""
        if not self.namespace:
            return [found(command[0]), *command[1:]]
        return [found("ip"), "netns", "exec", self.namespace, *command]

    def run(
        self,
        *command: str,
        within_s: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and returns what it wrote; raises AssertionError, with that, where it fails."""
        done = subprocess.run(
            self.command(command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            env=None if env is None else {**os.environ, **env},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def spawn(
        self, *command: str, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> ChildProcess:
        """Starts a process inside; who asks for it stops it."""
        return ChildProcess(self.command(command), log=log, env=env, cwd=cwd)

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Returns a new IPv4 socket that is inside for good, whoever uses it."""
        return self._enter(lambda: socket.socket(socket.AF_INET, kind))

    async def connect(
        self, port: int, *, address: str, tls: ssl.SSLContext | None = None, sni: str | None = None
    ) -> Connection:
        """Opens a connection to an address of the cluster (a Service's, a Gateway's, a pod's)."""
        inside = self.socket()
        inside.setblocking(False)
        try:
            async with asyncio.timeout(15):
                await asyncio.get_running_loop().sock_connect(inside, (address, port))
                name = (sni or address) if tls is not None else None
                streams = await asyncio.open_connection(sock=inside, ssl=tls, server_hostname=name, limit=_LIMIT)
        except BaseException:
            inside.close()
            raise
        return Connection(*streams)

    async def fetch(
        self,
        port: int,
        path: str = "/",
        *,
        address: str,
        method: str = "GET",
        host: str = "example.com",
        headers: HeaderInput = (),
        body: bytes = b"",
        tls: ssl.SSLContext | None = None,
        within_s: float = 10.0,
    ) -> Response:
        """Sends one HTTP request over a connection of its own; with `tls` the SNI is the host."""
        async with await self.connect(port, address=address, tls=tls, sni=host.partition(":")[0]) as connection:
            return await connection.request(
                path, method=method, host=host, headers=headers, body=body, within_s=within_s
            )

    def close(self) -> None:
        """Lets go of the namespace."""
        if self._inside is not None:
            self._inside.shutdown()
            self._inside = None

    def _enter(self, make: Callable[[], Any]) -> Any:
        # A socket belongs to the network namespace of the thread that makes it: one thread has entered, and stays.
        if not self.namespace:
            return make()
        if self._inside is None:
            self._inside = ThreadPoolExecutor(1, "netns", initializer=_enter_namespace, initargs=(self.namespace,))
        return self._inside.submit(make).result()


def _enter_namespace(name: str) -> None:
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"the network namespace {name} cannot be entered")
    finally:
        os.close(handle)


def found(program: str) -> str:
    """Returns the path of a program; raises FileNotFoundError where there is none."""
    path = shutil.which(program)
    if path is None:
        raise FileNotFoundError(f"there is no {program} on the PATH")
    return path
