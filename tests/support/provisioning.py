"""The provisioner alone, as a process inside a cluster's network: a file says what to want, another what it knows."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from controlplane.api.gateway import Gateway
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.kube.client import Api
from controlplane.provision.address import TcpAddress
from controlplane.provision.kubernetes.provisioner import Provisioner, Retry
from controlplane.provision.kubernetes.wanted import Defaults, ListenerPort, WantedGateway, wanted_gateway
from tests.support.cluster import Cluster
from tests.support.process import ChildProcess

Document = dict[str, Any]
FIELD = "spec.listeners"


class Provisioning:
    """A provisioner for tests: `want` Gateways (as documents of the cluster, with their ProxyConfig), read `state`."""

    def __init__(self, cluster: Cluster, *, xds: str = "10.99.0.1:1", image: str = "python") -> None:
        self._cluster = cluster
        self._xds = xds
        self._image = image
        self._wanted = cluster.folder / "wanted.json"
        self._state = cluster.folder / "state.json"
        self._process: ChildProcess | None = None
        self._count = 0

    def start(self) -> None:
        """Starts it, as when a replica begins to lead."""
        self._count += 1
        self._state.write_text("{}")
        options = ["--kubeconfig", str(self._cluster.kubeconfig), "--xds", self._xds, "--image", self._image]
        options += ["--wanted", str(self._wanted), "--state", str(self._state)]
        log = f"provisioner-{self._count}.log"
        self._process = self._cluster.spawn(sys.executable, "-m", __name__, *options, log=log)

    async def stop(self) -> None:
        """Ends it, as when another replica leads; what it made stays."""
        if self._process is not None:
            await self._process.stop(within_s=10)

    def want(self, *gateways: tuple[Document, Document], held: Sequence[str] = ()) -> None:
        """Says which Gateways are to have Envoys, each with the spec of its ProxyConfig."""
        temporary = self._wanted.with_suffix(".new")
        temporary.write_text(json.dumps({"gateways": gateways, "held": held}))
        temporary.replace(self._wanted)

    def state(self, gateway: str) -> Document:
        """Returns what is known of a Gateway (`NAMESPACE/NAME`): `addresses`, and `trouble` (reason and message)."""
        try:
            return json.loads(self._state.read_text()).get(gateway) or {}
        except ValueError:
            return {}

    def log(self) -> str:
        """Returns what it has written."""
        return self._process.tail(10) if self._process is not None else ""


def _wanted(text: str) -> tuple[dict[ObjectKey, WantedGateway], set[ObjectKey]]:
    told = json.loads(text)
    wanted: dict[ObjectKey, WantedGateway] = {}
    held: set[ObjectKey] = set()
    for document, config in told["gateways"]:
        gateway = load(document).object
        assert isinstance(gateway, Gateway), document
        ports = [ListenerPort(each.port, "UDP" if each.protocol == "UDP" else "TCP") for each in gateway.spec.listeners]
        spec = ProxyConfigSpec.model_validate(config)
        if f"{gateway.key.namespace}/{gateway.key.name}" in told["held"]:
            held.add(gateway.key)
        else:
            uid = document["metadata"]["uid"]
            wanted[gateway.key] = wanted_gateway(gateway, uid=uid, ports=ports, config=spec)
    return wanted, held


async def _main(options: argparse.Namespace) -> None:
    host, _, port = options.xds.rpartition(":")
    known: dict[str, Document] = {}

    def tell(keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            trouble = provisioner.trouble(key)
            known[f"{key.namespace}/{key.name}"] = {
                "addresses": [list(each) for each in provisioner.addresses(key)],
                "trouble": None if trouble is None else {"reason": trouble.reason, "message": trouble.message},
            }
        temporary = options.state.with_suffix(".new")
        temporary.write_text(json.dumps(known))
        temporary.replace(options.state)

    async with Api.connect(kubeconfig=options.kubeconfig) as api:
        defaults = Defaults(xds=TcpAddress(host, int(port)), image=options.image, resources={})
        retry = Retry(first_s=0.1, longest_s=1.0)
        provisioner = Provisioner(api, defaults=defaults, on_change=tell, retry=retry)
        async with asyncio.TaskGroup() as group:
            group.create_task(provisioner.run())
            before = ""
            while True:
                text = options.wanted.read_text() if options.wanted.exists() else ""
                if text != before:
                    wanted, held = _wanted(text)
                    provisioner.want(wanted, held=held)
                    before = text
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--xds", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--wanted", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    asyncio.run(_main(parser.parse_args()))
