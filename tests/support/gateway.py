"""A whole gateway for a test: a folder of manifests, the control plane on it, and a real Envoy of one Gateway."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from controlplane.engine import Ports
from controlplane.provision.address import parse_address
from controlplane.provision.binding import Bindings
from controlplane.provision.bootstrap import bootstrap
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from tests.support.envoy import Envoy
from tests.support.http import Connection, HeaderInput, Response
from tests.support.ports import free_port
from tests.support.waiting import until

Documents = str | Sequence[Mapping[str, Any]]

GATEWAY_CLASS: Mapping[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "dragoman"},
    "spec": {"controllerName": "dragoman.dev/gateway-controller"},
}


def write_documents(path: Path, documents: Documents, *, beside: Path | None = None) -> None:
    """Writes manifests (YAML text, or data) to a file that is renamed into place."""
    text = documents if isinstance(documents, str) else yaml.safe_dump_all([dict(each) for each in documents])
    beside = beside or path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


class Gateway:
    """`async with Gateway({"routes.yaml": documents}) as gateway`; every listener's port gets a free one to bind."""

    def __init__(
        self,
        files: Mapping[str, Documents],
        *,
        name: str = "demo/edge",
        others: Sequence[str] = (),
        nameservers: Sequence[tuple[str, int]] = (),
        keeps_state: bool = False,
        workers: int = 1,
        **plane_options: Any,
    ) -> None:
        """`plane_options` go to the control plane."""
        self.name = name
        self._workers = workers
        self._keeps_state = keeps_state
        self._plane_options = plane_options
        self._others = others
        self.home = Path(tempfile.mkdtemp(prefix="dgm-gw-"))
        self.folder = self.home / "config"
        self.folder.mkdir()
        self.ports: dict[tuple[str, int], int] = {}
        self.plane: ControlPlane | None = None
        self._nameservers = nameservers
        self._stack = AsyncExitStack()
        self.envoy: Envoy | None = None
        for file, documents in files.items():
            self.write(file, documents)

    def write(self, file: str, documents: Documents) -> None:
        """Puts a file in place at once, as an editor or `kubectl` would: written beside, then renamed."""
        write_documents(self.folder / file, documents, beside=self.home / f"{file}.new")

    def remove(self, file: str) -> None:
        """Removes a file."""
        (self.folder / file).unlink()

    async def __aenter__(self) -> Gateway:
        try:
            await self.start_plane()
            await self._start_envoys()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None and self.plane is not None:
            for finding in self.plane.report().findings:
                fault.add_note(str(finding))
        await self._stack.aclose()
        await self.stop_plane()
        shutil.rmtree(self.home, ignore_errors=True)

    async def _start_envoys(self) -> None:
        self.envoy, *_ = [
            await self._stack.enter_async_context(Envoy(self._bootstrap(name, number), concurrency=self._workers))
            for number, name in enumerate((self.name, *self._others))
        ]

    async def restart_envoy(self) -> None:
        """Stops the Envoys and starts new ones, which know nothing."""
        await self._stack.aclose()
        await self._start_envoys()

    async def start_plane(self) -> None:
        """Starts the control plane, anew where it was stopped."""
        self.plane = ControlPlane(
            FileSource(self.folder),
            bind=self._bind,
            listen={
                f"unix:{self.home}/xds-{number}.sock": Principal("gateway", name)
                for number, name in enumerate((self.name, *self._others))
            },
            nameservers=self._nameservers,
            state=self.home / "state.db" if self._keeps_state else None,
            **self._plane_options,
        )
        await self.plane.__aenter__()

    async def stop_plane(self) -> None:
        """Stops the control plane; Envoy goes on with what it has."""
        if self.plane is not None:
            plane, self.plane = self.plane, None
            await plane.__aexit__(None, None, None)

    def port(self, listener_port: int, gateway: str | None = None) -> int:
        """Returns where a listener's port is bound."""
        return self._port_of((gateway or self.name, listener_port))

    def _port_of(self, listener: tuple[str, int]) -> int:
        if listener not in self.ports:
            self.ports[listener] = free_port()
        return self.ports[listener]

    async def get(
        self,
        path: str = "/",
        *,
        port: int = 80,
        gateway: str | None = None,
        host: str = "example.com",
        method: str = "GET",
        headers: HeaderInput = (),
        body: bytes = b"",
        **connect: Any,
    ) -> Response:
        """Sends one request on a connection of its own."""
        async with await Connection.to(self.port(port, gateway), **connect) as connection:
            return await connection.request(path, method=method, host=host, headers=headers, body=body)

    async def answers(self, path: str, status: int = 200, *, within_s: float = 30.0, **request: Any) -> Response:
        """Waits until a request is answered with this status, and returns the response."""

        async def answered() -> Response | None:
            response = await self.get(path, **request)
            return response if response.status == status else None

        found = await until(answered, within_s=within_s, what=f"{path} answers {status}")
        assert found is not None
        return found

    async def refuses(self, port: int, *, gateway: str | None = None, within_s: float = 30.0) -> None:
        """Waits until nobody listens on a listener's port."""

        async def refused() -> bool:
            try:
                (await Connection.to(self.port(port, gateway))).close()
            except ConnectionRefusedError:
                return True
            return False

        await until(refused, within_s=within_s, what=f"port {port} to be closed")

    async def cannot_connect(self, port: int, *, within_s: float = 30.0, **connect: Any) -> None:
        """Waits until new connections are cut, such as those for a name that no listener has."""

        async def cut() -> bool:
            try:
                (await Connection.to(self.port(port), **connect)).close()
            except OSError:
                return True
            return False

        await until(cut, within_s=within_s, what=f"connections to port {port} to be cut")

    async def found_pending(self, subject: str, words: str, *, within_s: float = 30.0) -> None:
        """Waits until an object (`KIND NS/NAME`) says of itself that it waits."""

        def said() -> bool:
            assert self.plane is not None
            return any(
                words in condition.message
                for key, status in self.plane.report().statuses
                for condition in status.conditions
                if str(key) == subject and condition.status == "Unknown"
            )

        await until(said, within_s=within_s, what=f"{subject} to say {words!r}")

    async def found(self, *parts: str, within_s: float = 30.0) -> str:
        """Waits for a finding that has all these parts, and returns it."""

        def found() -> str | None:
            return next((each for each in self.findings() if all(part in each for part in parts)), None)

        text = await until(found, within_s=within_s, what=f"a finding of {parts}", detail=lambda: str(self.findings()))
        assert text is not None
        return text

    def findings(self) -> list[str]:
        """Returns what is wrong now, in words."""
        assert self.plane is not None
        return [str(finding) for finding in self.plane.report().findings]

    def _bootstrap(self, name: str, number: int) -> Mapping[str, Any]:
        return bootstrap(
            name,
            xds=parse_address(f"unix:{self.home}/xds-{number}.sock"),
            admin=parse_address(f"unix:{self.home}/admin-{number}.sock"),
        )

    def _bind(self, gateways: Ports) -> Bindings:
        wanted = [(gateway, port) for gateway, (_, ports) in gateways.items() for port in ports]
        return Bindings({each: (("127.0.0.1", self._port_of(each)),) for each in wanted})
