"""Keeps what pods write for as long as they live: a test's Envoys are gone when one wants to read their logs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.support.cluster_api import Api, ApiError

_IMAGES = ("dragoman", "envoy")


class PodLogs:
    """`with PodLogs(api, folder)`: a file NAMESPACE_POD_CONTAINER.log for each container of the product's images."""

    def __init__(self, api: Api, folder: Path, *, every_s: float = 0.5) -> None:
        self._api = api
        self._folder = folder
        self._every_s = every_s
        self._ended = threading.Event()
        self._seen: set[tuple[str, str, int]] = set()
        self._cuts: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> PodLogs:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._start(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for cut in self._cuts:
            cut()
        for thread in self._threads:
            thread.join(5)

    def _look(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                pods = self._api.get("/api/v1/pods")["items"]
            except (OSError, ApiError):
                continue
            for pod in pods:
                for status in pod.get("status", {}).get("containerStatuses", []):
                    key = (pod["metadata"]["uid"], status["name"], status["restartCount"])
                    running = any(each in status.get("state", {}) for each in ("running", "terminated"))
                    if key not in self._seen and running and any(image in status["image"] for image in _IMAGES):
                        self._seen.add(key)
                        self._start(lambda pod=pod, name=status["name"]: self._follow(pod["metadata"], name))

    def _follow(self, pod: dict[str, str], container: str) -> None:
        path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/log"
        target = self._folder / f"{pod['namespace']}_{pod['name']}_{container}.log"
        with target.open("ab") as log:
            try:
                for line in self._api.lines(path, opened=self._cuts.append, container=container, follow="true"):
                    log.write(line + b"\n")
                    log.flush()
            except (OSError, ApiError) as fault:
                log.write(f"the log ends here: {fault}\n".encode())

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
