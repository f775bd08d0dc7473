"""File mode's data plane: one Envoy process a Gateway, started, watched and stopped on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from controlplane.provision.address import Address, UnixAddress, parse_address
from controlplane.provision.bootstrap import bootstrap, bootstrap_yaml
from controlplane.provision.keeper import BackOff, Keeper


class LocalEnvoys:
    """`await envoys.apply({"demo/edge"})` makes the running Envoys those of these Gateways; `stop` ends them all.

    `xds` gives where the control plane serves a Gateway's Envoys; `folder` (a short path: it holds Unix sockets) takes,
    for each Envoy, its bootstrap, its admin socket and its log. `on_line(gateway, line)` gets what an Envoy logs,
    `on_exit(gateway, code, wait_s)` hears that one ended and when it is started again.
    """

    def __init__(
        self,
        *,
        envoy: Path,
        xds: Callable[[str], Address],
        folder: Path,
        concurrency: int = 2,
        log_level: str = "warning",
        on_line: Callable[[str, str], None] = lambda gateway, line: None,
        on_exit: Callable[[str, int, float], None] = lambda gateway, code, wait_s: None,
        back_off: BackOff | None = None,
    ) -> None:
        self._envoy = envoy
        self._xds = xds
        self._folder = folder
        self._options = ("--concurrency", str(concurrency), "--log-level", log_level)
        self._on_line = on_line
        self._on_exit = on_exit
        self._back_off = back_off
        self._keepers: dict[str, Keeper] = {}

    @property
    def running(self) -> frozenset[str]:
        """The Gateways that have an Envoy."""
        return frozenset(self._keepers)

    def pid(self, gateway: str) -> int | None:
        """The process id of a Gateway's Envoy; None where it has none at the moment."""
        keeper = self._keepers.get(gateway)
        return None if keeper is None else keeper.pid

    def admin(self, gateway: str) -> UnixAddress:
        """Where the admin endpoint of a Gateway's Envoy is."""
        address = parse_address(f"unix:{self._home(gateway)}/admin.sock")
        assert isinstance(address, UnixAddress)
        return address

    def log(self, gateway: str) -> Path:
        """The file that a Gateway's Envoy logs to."""
        return self._home(gateway) / "envoy.log"

    async def apply(self, gateways: Collection[str]) -> None:
        """Starts the Envoys of Gateways that are new and stops those of Gateways that are gone; raises OSError."""
        gone = self.running - set(gateways)
        await asyncio.gather(*(self._end(gateway) for gateway in gone))
        for gateway in sorted(set(gateways) - self.running):
            await self._begin(gateway)

    async def ready(self, gateway: str) -> bool:
        """Says whether the Envoy has its first configuration and serves."""
        try:
            return await asyncio.wait_for(_get_status(self.admin(gateway).path, "/ready"), 1.0) == 200
        except (OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """Stops every Envoy."""
        await self.apply(())

    async def _begin(self, gateway: str) -> None:
        home = self._home(gateway)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = home / "envoy.yaml"
        document = bootstrap(gateway, xds=self._xds(gateway), node_id=f"{gateway}/local", admin=self.admin(gateway))
        path.write_text(bootstrap_yaml(document), "utf-8")
        # Without hot restart any number of Envoys run side by side, with no shared memory to tell apart.
        keeper = Keeper(
            (str(self._envoy), "-c", str(path), "--disable-hot-restart", *self._options),
            log=self.log(gateway),
            on_line=lambda line: self._on_line(gateway, line),
            on_exit=lambda code, wait_s: self._on_exit(gateway, code, wait_s),
            back_off=self._back_off,
        )
        await keeper.start()
        self._keepers[gateway] = keeper

    async def _end(self, gateway: str) -> None:
        keeper = self._keepers.pop(gateway)
        await keeper.stop()
        await asyncio.to_thread(shutil.rmtree, self._home(gateway), ignore_errors=True)

    def _home(self, gateway: str) -> Path:
        # Names of Gateways are longer than the path of a Unix socket may be.
        return self._folder / hashlib.blake2b(gateway.encode(), digest_size=5).hexdigest()


async def _get_status(socket_path: str, path: str) -> int:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
        line = (await reader.readline()).split(b" ")
        return int(line[1]) if len(line) > 1 else 0
    finally:
        writer.close()
