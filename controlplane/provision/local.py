"""File mode's data plane: one Envoy process a Gateway, started, watched and stopped on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from controlplane.provision.address import Address, UnixAddress, parse_address
from controlplane.provision.bootstrap import bootstrap, bootstrap_yaml
from dragoman.processes import BackOff, ChildSpec, Supervisor

_ASK_WITHIN_S = 1.0
_STOP_GRACE_S = 5.0


class LocalEnvoys:
    """`await envoys.apply({"demo/edge"})` makes the running Envoys those of these Gateways; `stop` ends them all.

    They are children of `supervisor`, under the names that `child_name` gives, and started again when they end. `xds`
    tells where the control plane serves a Gateway's Envoys. `folder` (a short path: it holds Unix sockets) takes, for
    each Envoy, its bootstrap and its admin socket.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        envoy: Path,
        xds: Callable[[str], Address],
        folder: Path,
        concurrency: int = 2,
        log_level: str = "warning",
        back_off: BackOff | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._envoy = envoy
        self._xds = xds
        self._folder = folder
        # `misc` warns of every message that Envoy marks as work in progress: nothing that a reader could act on.
        logging = ("--log-level", log_level, "--component-log-level", "misc:error")
        self._options = ("--concurrency", str(concurrency), *logging)
        self._back_off = back_off or BackOff()
        self._running: set[str] = set()

    @property
    def running(self) -> frozenset[str]:
        """The Gateways that have an Envoy."""
        return frozenset(self._running)

    def pid(self, gateway: str) -> int | None:
        """The process id of a Gateway's Envoy; None where it has none at the moment."""
        return self._supervisor.pid(child_name(gateway)) if gateway in self._running else None

    def admin(self, gateway: str) -> UnixAddress:
        """Where the admin endpoint of a Gateway's Envoy is."""
        address = parse_address(f"unix:{self._home(gateway)}/admin.sock")
        assert isinstance(address, UnixAddress)
        return address

    async def apply(self, gateways: Collection[str]) -> None:
        """Starts the Envoys of Gateways that are new and stops those of Gateways that are gone.

        Returns when they run, which is before they have their configuration: see `ready`. Raises ChildError where an
        Envoy does not even start.
        """
        gone = self.running - set(gateways)
        await asyncio.gather(*(self._end(gateway) for gateway in gone))
        await asyncio.gather(*(self._begin(gateway) for gateway in sorted(set(gateways) - self.running)))

    async def ready(self, gateway: str) -> bool:
        """Says whether the Envoy has its first configuration and serves."""
        return await self._asks(gateway, "/ready")

    async def stop(self) -> None:
        """Stops every Envoy."""
        await self.apply(())

    async def _begin(self, gateway: str) -> None:
        home = self._home(gateway)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = home / "envoy.yaml"
        document = bootstrap(gateway, xds=self._xds(gateway), node_id=f"{gateway}/local", admin=self.admin(gateway))
        path.write_text(bootstrap_yaml(document), "utf-8")

        # Not Envoy's own readiness: that waits for the control plane, and must not keep an Envoy from being kept.
        async def runs() -> bool:
            return await self._asks(gateway, "/server_info")

        # Without hot restart any number of Envoys run side by side, with no shared memory to tell apart.
        spec = ChildSpec(
            child_name(gateway),
            (str(self._envoy), "-c", str(path), "--disable-hot-restart", *self._options),
            ready=runs,
            stop_grace_s=_STOP_GRACE_S,
            back_off=self._back_off,
        )
        await self._supervisor.start(spec)
        self._running.add(gateway)

    async def _end(self, gateway: str) -> None:
        self._running.discard(gateway)
        await self._supervisor.stop(child_name(gateway))
        await asyncio.to_thread(shutil.rmtree, self._home(gateway), ignore_errors=True)

    async def _asks(self, gateway: str, path: str) -> bool:
        try:
            return await asyncio.wait_for(_status(self.admin(gateway).path, path), _ASK_WITHIN_S) == 200
        except (OSError, TimeoutError):
            return False

    def _home(self, gateway: str) -> Path:
        # Names of Gateways are longer than the path of a Unix socket may be.
        return self._folder / hashlib.blake2b(gateway.encode(), digest_size=5).hexdigest()


def child_name(gateway: str) -> str:
    """The name of a Gateway's Envoy among the supervisor's children."""
    return f"envoy {gateway}"


async def _status(socket_path: str, path: str) -> int:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    try:
        # Envoy's admin endpoint refuses HTTP/1.0.
        writer.write(f"GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
        words = (await reader.readline()).split(b" ")
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    finally:
        writer.close()
