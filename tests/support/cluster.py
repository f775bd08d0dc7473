"""A Kubernetes cluster for tests: one that the rig starts on this machine, or one that exists."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import yaml

from tests.support.cluster_api import Api, ApiError, Document
from tests.support.cluster_network import Network
from tests.support.cluster_rig import ROOT, Rig, why_no_rig
from tests.support.process import ChildProcess

T = TypeVar("T")
CHART = ROOT / "charts" / "dragoman"
VALUES = ROOT / "tests" / "cluster" / "values.yaml"
NAMESPACE = "dragoman-system"
VALUES_VARIABLE = "CLUSTER_VALUES"
_WAIT_S = 30.0
_PAUSE_S = 180.0
"""Clients of an API server that was killed pause for ever longer between tries, for up to two minutes in all."""


class Cluster:
    """`with Cluster.start("name") as cluster`, or `Cluster.existing(kubeconfig)`: a cluster with its helpers.

    `api` speaks with the API server, `network` reaches what is inside. Everything is synchronous but `network.connect`.
    """

    def __init__(self, kubeconfig: Path, *, name: str = "", rig: Rig | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.name = name
        self.rig = rig
        self.network = Network(f"cluster-{name}" if rig else "")
        self._folder = tempfile.TemporaryDirectory(prefix="dgm-cluster-")
        self.folder = Path(self._folder.name)
        self.api = Api(self.folder / "api.sock")
        self._kubectl = str(rig.bin / "kubectl") if rig else "kubectl"
        self.helm = str(rig.bin / "helm") if rig else "helm"
        self._processes: list[ChildProcess] = []
        self._whole_at = float("-inf")

    @staticmethod
    def start(name: str, *, channel: str = "experimental", keep: bool = False) -> Cluster:
        """Returns a fresh cluster with the CRDs of a channel; with `keep`, the one that runs, which stays up."""
        rig = Rig.find()
        if rig is None:
            raise RuntimeError(why_no_rig())
        cluster = Cluster(rig.home / "run" / name / "kubeconfig", name=name, rig=rig)
        cluster._channel, cluster._keep = channel, keep
        return cluster

    @staticmethod
    def existing(kubeconfig: Path) -> Cluster:
        """Returns a cluster that somebody else started, and that is left as it was found."""
        return Cluster(kubeconfig)

    _channel = ""
    _keep = False
    fresh = False

    @property
    def ours(self) -> bool:
        """Whether this is a cluster of the rig's, whose API server may be killed."""
        return self.rig is not None

    def __enter__(self) -> Cluster:
        try:
            self._up()
            socket = self.folder / "api.sock"
            self.spawn(self._kubectl, "proxy", f"--unix-socket={socket}", log="kubectl-proxy.log")
            self.wait(lambda: self.api.get("/readyz") == "ok", what="the API server")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for process in self._processes:
                process.signal(signal.SIGKILL)
            self.network.close()
            self._folder.cleanup()
        finally:
            if self.rig is not None and not self._keep:
                self.rig.run("down", name=self.name)

    def _up(self) -> None:
        if self.rig is None or (self._keep and self.running()):
            return
        self.fresh = True
        self.rig.run("up", self._channel, name=self.name)

    def running(self) -> bool:
        """Whether every process of the cluster is alive."""
        assert self.rig is not None
        try:
            self.rig.run("status", name=self.name)
        except RuntimeError:
            return False
        return True

    # Commands and processes

    @property
    def env(self) -> dict[str, str]:
        """What a client of the cluster needs in its environment."""
        path = f"{self.rig.bin}:{os.environ['PATH']}" if self.rig else os.environ["PATH"]
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, with the cluster's kubeconfig."""
        return self.network.run(*command, env=self.env, **options)

    def spawn(self, *command: str, log: str, env: Mapping[str, str] | None = None) -> ChildProcess:
        """Starts a process inside that ends with the cluster, if not before; its log is in `folder`."""
        env = {**self.env, **(env or {})}
        process = self.network.spawn(*command, log=self.folder / log, env=env, cwd=self.folder)
        self._processes.append(process)
        return process

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Runs kubectl as the administrator, and returns what it printed."""
        return self.run(self._kubectl, *arguments, **options).stdout

    def apply(self, documents: str | Iterable[Document]) -> None:
        """Applies manifests, in their order."""
        parsed: Iterable[Any] = yaml.safe_load_all(documents) if isinstance(documents, str) else documents
        for document in parsed:
            if document:
                self.api.apply(document)

    def delete(self, *documents: Document) -> None:
        """Deletes objects and waits until they are gone, even if a controller makes others of their names at once."""
        deleted = [(document, _uid(self.api.read(document))) for document in documents]
        for document in documents:
            self.api.delete(document)
        for document, uid in deleted:
            if uid is not None:
                self.wait(lambda of=document, uid=uid: _uid(self.api.read(of)) != uid, what=f"no {_name(document)}")

    def namespace(self, name: str, **labels: str) -> None:
        """Makes a namespace in which pods can run, once one of that name that is going is gone."""
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        patience_s = self.patience_s(120)
        self.wait(lambda: not _going(self.api.read(made)), what=f"the end of the namespace {name}", within_s=patience_s)
        self.api.apply(made)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": name, "name": "default"}}
        self.wait(lambda: self.api.read(account), what=f"the service account of {name}", within_s=self.patience_s(120))

    # Waiting

    def disturbed(self) -> None:
        """Tells that the API server was killed: what controllers do for us may be late for a while."""
        self._whole_at = time.monotonic() + _PAUSE_S

    def patience_s(self, usually_s: float = _WAIT_S) -> float:
        """Returns how long controllers may take: as long as they usually may, and longer after an API server's end."""
        return max(usually_s, self._whole_at - time.monotonic())

    def wait(
        self,
        condition: Callable[[], T],
        *,
        what: str,
        within_s: float | None = None,
        every_s: float = 0.05,
        detail: Callable[[], str] = lambda: "",
    ) -> T:
        """Calls `condition` until it gives something true; that nobody answers, or a refusal, counts as not yet.

        Without `within_s` it has as long as controllers may take (`patience_s`).
        """
        within_s = self.patience_s() if within_s is None else within_s
        deadline = time.monotonic() + within_s
        while True:
            try:
                seen: object = condition()
                if seen:
                    return seen  # type: ignore[return-value]
            except (OSError, ApiError) as fault:
                seen = fault
            if time.monotonic() >= deadline:
                raise AssertionError(f"waited {within_s:.1f} s for {what}; last seen: {seen!r}\n{detail()}".rstrip())
            time.sleep(every_s)

    def wait_for(self, document: Document, holds: Callable[[Any], bool], *, what: str = "", **options: Any) -> Any:
        """Waits until an object is there and `holds` of it, and returns it."""
        last: list[Any] = [None]

        def there() -> Any:
            last[0] = self.api.read(document)
            return last[0] if last[0] is not None and holds(last[0]) else None

        def detail() -> str:
            return yaml.safe_dump((last[0] or {}).get("status"))

        return self.wait(there, what=what or f"{_name(document)} as wanted", detail=detail, **options)

    def wait_rollout(self, namespace: str, name: str, *, kind: str = "Deployment", within_s: float = 60.0) -> Any:
        """Waits until every replica is updated and available."""

        def done(found: Any) -> bool:
            status, wanted = found.get("status", {}), found["spec"]["replicas"]
            counts = [status.get(each, 0) for each in ("updatedReplicas", "availableReplicas", "replicas")]
            return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3

        document = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"namespace": namespace, "name": name}}
        what = f"{kind} {namespace}/{name} to roll out"
        return self.wait_for(document, done, what=what, within_s=self.patience_s(within_s))

    # The product

    def install(self, *values: Mapping[str, Any], release: str = "dragoman", within_s: float = 90.0) -> None:
        """Installs the chart, or upgrades it; `values` go over those for the rig (or for the existing cluster)."""
        base = VALUES if self.ours else Path(os.environ.get(VALUES_VARIABLE, os.devnull))
        options = ["--values", str(base)]
        for number, each in enumerate(values):
            path = self.folder / f"values-{number}.yaml"
            path.write_text(yaml.safe_dump(dict(each)))
            options += ["--values", str(path)]
        command = [self.helm, "upgrade", "--install", release, str(CHART), "--namespace", NAMESPACE, *options]
        within_s = self.patience_s(within_s)
        limit = f"{within_s:.0f}s"
        try:
            self.run(*command, "--create-namespace", "--wait", "--timeout", limit, within_s=within_s + 30)
        except AssertionError as fault:
            fault.add_note(self.describe(NAMESPACE))
            raise

    def describe(self, namespace: str) -> str:
        """Returns what one looks at first: pods, events, and the end of what the pods that are not ready wrote."""
        told = [self.kubectl("-n", namespace, *each.split()) for each in ("get pods -o wide", "get events")]
        for pod in self.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]:
            if not all(status["ready"] for status in pod["status"].get("containerStatuses", [])):
                name = pod["metadata"]["name"]
                log = self.run(self._kubectl, "-n", namespace, "logs", name, "--tail=20", check=False)
                told.append(f"{name}:\n{log.stdout}{log.stderr}")
        return "\n".join(told)

    def restart(self) -> None:
        """Starts every process of what is installed anew, with the code as it is now, and waits for them."""
        self.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment")
        for each in self.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")["items"]:
            self.wait_rollout(NAMESPACE, each["metadata"]["name"])

    def uninstall(self, *, release: str = "dragoman") -> None:
        """Removes what was installed; the CRDs stay."""
        self.run(self.helm, "uninstall", release, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")

    def serve_in_namespace(self, *arguments: str, log: str = "serve.log") -> ChildProcess:
        """Starts the control plane as a process on the node, with the administrator's rights."""
        command = str(Path(sys.executable).parent / "dragoman")
        env = {"HOME": str(self.folder), "POD_NAME": "serve", "POD_NAMESPACE": NAMESPACE, "POD_IP": "10.99.0.1"}
        return self.spawn(
            command, "serve", "--kubernetes", "--kubeconfig", str(self.kubeconfig), *arguments, log=log, env=env
        )


def _name(document: Document) -> str:
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def _uid(found: Any | None) -> str | None:
    return None if found is None else found["metadata"]["uid"]


def _going(found: Any | None) -> bool:
    return found is not None and "deletionTimestamp" in found["metadata"]
