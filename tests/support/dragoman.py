"""The product as its users run it: `dragoman serve` on a folder, with Envoys that are bootstrapped for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from controlplane.provision.address import TcpAddress
from controlplane.provision.bootstrap import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.waiting import until


def dragoman_command() -> str:
    """Returns the path of the command `dragoman` beside this Python."""
    return str(Path(sys.executable).parent / "dragoman")


class Serve:
    """`async with Serve(folder, home=tmp_path) as serve`: the control plane on a folder of manifests, ready.

    `home` takes its log and whatever it keeps; after `kill` or `stop`, `start` brings it back at the same addresses.
    """

    def __init__(self, folder: Path, *arguments: str, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.xds_port, self.http_port = free_ports(2)
        self._home = home
        self._arguments = arguments
        self._env = {"HOME": str(home), **(env or {})}
        self._process: ChildProcess | None = None

    async def __aenter__(self) -> Serve:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None and self._process is not None:
            fault.add_note(self._process.tail())
        await self.stop()

    @property
    def process(self) -> ChildProcess:
        """The running process."""
        assert self._process is not None, "the control plane is not started"
        return self._process

    async def start(self, *, ready: bool = True, within_s: float = 60.0) -> None:
        """Starts the process; with `ready`, waits until it has built its first snapshot."""
        listen = ("--xds", f"127.0.0.1:{self.xds_port}", "--http", f"127.0.0.1:{self.http_port}")
        command = (dragoman_command(), "serve", "--config", str(self.folder), *listen, *self._arguments)
        self._process = ChildProcess(command, log=self._home / "serve.log", env=self._env, cwd=self._home)
        if ready:
            await until(self._is_ready, what="the control plane", within_s=within_s, detail=self._process.tail)

    async def stop(self) -> None:
        """Asks the process to end, and waits for it."""
        if self._process is not None:
            await self._process.stop()
            self._process = None

    async def kill(self) -> None:
        """Kills the process at once."""
        if self._process is not None:
            await self._process.kill()
            self._process = None

    async def status(self) -> Any:
        """Returns what `GET /status` says."""
        return (await fetch(self.http_port, "/status")).json()

    def envoy(self, gateway: str, **options: Any) -> Envoy:
        """Returns an Envoy of a Gateway (`NAMESPACE/NAME`), bootstrapped for this control plane and not started yet."""
        document = bootstrap(gateway, xds=TcpAddress("127.0.0.1", self.xds_port), admin=None)
        return Envoy(document, **options)

    async def _is_ready(self) -> bool:
        if self.process.exit_code is not None:
            raise AssertionError(f"the control plane ended at its start\n{self.process.tail()}")
        return (await fetch(self.http_port, "/health/ready")).status == 200
