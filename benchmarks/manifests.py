"""A folder of N HTTPRoutes over N/10 host names and 100 backends, one Gateway, as files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

GATEWAY: Final = "bench/edge"
BACKENDS: Final = 100

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class Folder:
    """The manifests of `routes` routes in `path`; requests for them come in on `port` and end at `upstream_port`."""

    path: Path
    routes: int
    port: int
    upstream_port: int
    routes_a_host: int = 10

    def host(self, index: int) -> str:
        """Returns the host name of a route."""
        return f"h{index // self.routes_a_host}.example.com"

    def first_path(self, index: int) -> str:
        """Returns the path that a route has at first."""
        return f"/r{index % self.routes_a_host}"

    def write(self) -> None:
        """Writes everything, each route with its first path, in a file of its own."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "gateway.yaml").write_text(dump(gateway(self.port)), "utf-8")
        backends = [document for index in range(BACKENDS) for document in backend(index, self.upstream_port)]
        (self.path / "backends.yaml").write_text(dump(backends), "utf-8")
        # Written once and filled in: to dump fifty thousand documents takes longer than to serve them.
        form = dump([route(0, "@host", "/@path")]).replace("route-0", "@name").replace("backend-0", "@backend")
        for index in range(self.routes):
            text = form.replace("@name", f"route-{index}").replace("@backend", f"backend-{index % BACKENDS}")
            text = text.replace("@host", self.host(index)).replace("/@path", self.first_path(index))
            self._file(index).write_text(text, "utf-8")

    def change(self, index: int, path: str) -> None:
        """Gives a route another path: its file is written aside, then renamed into place."""
        aside = self.path / f".route-{index}.new"
        aside.write_text(dump([route(index, self.host(index), path)]), "utf-8")
        os.replace(aside, self._file(index))

    def add(self, index: int, path: str) -> None:
        """Adds a route, in a file that appears at once."""
        self.change(index, path)

    def remove(self, index: int) -> None:
        """Removes a route."""
        self._file(index).unlink()

    def _file(self, index: int) -> Path:
        return self.path / f"route-{index:05}.yaml"


def gateway(port: int) -> list[dict[str, Any]]:
    """Returns a GatewayClass and a Gateway with one HTTP listener."""
    group = "gateway.networking.k8s.io/v1"
    return [
        {
            "apiVersion": group,
            "kind": "GatewayClass",
            "metadata": {"name": "dragoman"},
            "spec": {"controllerName": "dragoman.dev/gateway-controller"},
        },
        {
            "apiVersion": group,
            "kind": "Gateway",
            "metadata": {"namespace": "bench", "name": "edge"},
            "spec": {
                "gatewayClassName": "dragoman",
                "listeners": [{"name": "http", "protocol": "HTTP", "port": port}],
            },
        },
    ]


def backend(index: int, port: int, *, address: str = "127.0.0.1") -> list[dict[str, Any]]:
    """Returns a Service and its only endpoint."""
    name = f"backend-{index}"
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "bench", "name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "bench",
                "name": f"{name}-1",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address]}],
        },
    ]


def route(index: int, host: str, path: str) -> dict[str, Any]:
    """Returns an HTTPRoute of the Gateway: one path of a host, to one backend."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"namespace": "bench", "name": f"route-{index}"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "hostnames": [host],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                    "backendRefs": [{"name": f"backend-{index % BACKENDS}", "port": 80}],
                }
            ],
        },
    }


def dump(documents: list[dict[str, Any]]) -> str:
    """Returns manifests as the text of a file."""
    return yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False)
