"""What may happen to a cluster's own servers: the API server dies and returns, etcd freezes or forgets."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster


class Faults:
    """Does harm to the servers of a cluster that the rig started, and undoes it."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.rig is not None, "only what the rig started may be harmed"
        self._cluster = cluster
        self._run = cluster.rig.home / "run" / cluster.name

    def pid(self, name: str) -> int:
        """Returns the process id of a server (`etcd`, `kube-apiserver`, …)."""
        lines = [line.split() for line in (self._run / "pids").read_text().splitlines()]
        return int(next(pid for pid, _, each in lines if each == name))

    @contextmanager
    def no_api_server(self) -> Iterator[None]:
        """Kills the API server at once; at the end of the block it is back, with the same arguments, and ready."""
        pid = self.pid("kube-apiserver")
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        os.kill(pid, signal.SIGKILL)
        self._cluster.wait(lambda: not _alive(pid), what="the end of the API server", within_s=30)
        try:
            yield
        finally:
            self._start("kube-apiserver", [argument.decode() for argument in arguments])
            self._cluster.disturbed()
        self._cluster.wait(self._serves, what="the API server", within_s=120, detail=self._log)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stops a server for as long as the block lasts: it holds its connections and answers nothing."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def compact(self) -> int:
        """Makes etcd forget all that is not the present, and returns its revision."""
        revision = int(self._etcd("kv/range", key=_base64(b"\0"))["header"]["revision"])
        self._etcd("kv/compaction", revision=str(revision), physical=True)
        return revision

    def _serves(self) -> bool:
        # It says that it is ready some time before it serves the kinds that are defined by objects.
        api = self._cluster.api
        return api.get("/readyz") == "ok" and bool(api.get("/apis/gateway.networking.k8s.io/v1/gateways"))

    def _start(self, name: str, command: list[str]) -> None:
        with (self._run / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self._cluster.network.command(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # `down` ends what is listed, told apart from a later process of the same id by its start time.
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        pids = self._run / "pids"
        others = [line for line in pids.read_text().splitlines() if line.split()[2] != name]
        pids.write_text("\n".join([*others, f"{process.pid} {started} {name}", ""]))

    def _log(self) -> str:
        return "\n".join((self._run / "log" / "kube-apiserver.log").read_text().splitlines()[-20:])

    def _etcd(self, method: str, **body: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", 2379, timeout=10)
        connection.sock = self._cluster.network.socket()
        connection.sock.settimeout(10)
        connection.sock.connect(("127.0.0.1", 2379))
        try:
            connection.request("POST", f"/v3/{method}", json.dumps(body), {"content-type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def _alive(pid: int) -> bool:
    # A process whose first thread has ended holds its ports until the last one has.
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
