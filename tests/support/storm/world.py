"""What is declared: manifests in a folder, written as an editor would, with what may be answered from then on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS
from tests.support.storm.events import Ring
from tests.support.storm.judge import Ask, Target
from tests.support.storm.traffic import Traffic

GATEWAY: Final = "demo/edge"
BACKENDS: Final = 8
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Manifest = dict[str, Any]
Rule = dict[str, Any]


@dataclass(slots=True)
class World:
    """The folder, the traffic over what is in it, and the notes of what was done. `backends` are ports of b0, b1, …"""

    folder: Path
    http: int
    https: int
    backends: Sequence[int]
    authority: Authority
    ring: Ring
    traffic: Traffic
    took_s: list[float] = field(default_factory=list[float])
    """From a file renamed into place until all Envoys answered as after the change, by every door."""

    def write(self, file: str, *documents: Mapping[str, Any], note: str = "") -> None:
        """Puts a file in place at once: written beside, then renamed."""
        beside = self.folder.parent / f"{file}.new"
        beside.write_text(yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False))
        self.ring.note(note or f"wrote {file}")
        os.replace(beside, self.folder / file)

    def remove(self, file: str, *, note: str = "") -> None:
        """Removes a file."""
        self.ring.note(note or f"removed {file}")
        (self.folder / file).unlink()

    async def change(self, moves: Mapping[Target, str | Sequence[str]], do: Callable[[], None]) -> None:
        """Makes a change that gives targets other answers, and waits until it is in effect everywhere."""
        self.begin(moves, do)
        began_at = time.monotonic()
        await self.traffic.confirm(moves)
        self.took_s.append(time.monotonic() - began_at)
        self.ring.note(f"in effect: {', '.join(target.name for target in list(moves)[:3])}")

    def begin(self, moves: Mapping[Target, str | Sequence[str]], do: Callable[[], None]) -> None:
        """Makes a change without waiting for its effect."""
        for target, answers in moves.items():
            target.moves_to([answers] if isinstance(answers, str) else answers)
        self.traffic.heat(moves)
        do()

    def base(self, routes: int) -> list[Target]:
        """Writes the Gateway, its backends and so many routes; returns what is to be asked for."""
        self.gateway()
        self.certificate()
        services = [document for number, port in enumerate(self.backends) for document in service(f"b{number}", port)]
        self.write("base.yaml", GATEWAY_CLASS, *services)
        targets: list[Target] = []
        for number in range(routes):
            backend = f"b{number % BACKENDS}"
            self.write(
                f"base-{number:05}.yaml", route(f"base-{number}", host(number), [rule(f"/base-{number}", backend)])
            )
            targets.append(Target(Ask(f"/base-{number}", host(number)), frozenset({f"200 {backend}"})))
        return targets

    def gateway(self, *more: Mapping[str, Any], note: str = "") -> None:
        """Writes the Gateway: its two listeners, and more."""
        secret = {"certificateRefs": [{"name": "edge-cert"}]}
        listeners = [
            {"name": "http", "port": self.http, "protocol": "HTTP"},
            {"name": "https", "port": self.https, "protocol": "HTTPS", "tls": secret},
            *(dict(each) for each in more),
        ]
        self.write("gateway.yaml", m.gateway(listeners=listeners), note=note)

    def certificate(self) -> None:
        """Writes the certificate of the HTTPS listener, a new one each time."""
        leaf = self.authority.leaf("*.storm.example", "storm.example")
        self.write("edge-cert.yaml", leaf.secret("demo", "edge-cert"), note="the certificate is replaced")


def host(number: int) -> str:
    """Returns the host name that a route belongs to: ten share one."""
    return f"h{number // 10}.storm.example"


def service(name: str, *ports: int, suffix: str = "a") -> list[Manifest]:
    """Returns a Service and its endpoints on loopback."""
    slices = [
        {**m.endpoint_slice(name, "127.0.0.1", suffix=f"{suffix}{index}"), "ports": [{"port": port}]}
        for index, port in enumerate(ports)
    ]
    return [m.service(name), *slices]


def rule(path: str, *backends: str, filters: Sequence[Mapping[str, Any]] = (), **more: Any) -> Rule:
    """Returns a rule that takes a path to Services."""
    made: Rule = {"matches": [{"path": {"type": "PathPrefix", "value": path}}]}
    if backends:
        made["backendRefs"] = [{"name": name, "port": 80} for name in backends]
    if filters:
        made["filters"] = [dict(each) for each in filters]
    return {**made, **more}


def route(name: str, hostname: str, rules: Sequence[Rule]) -> Manifest:
    """Returns an HTTPRoute of all listeners of the Gateway."""
    return m.route(name, list(rules), hostnames=[hostname])


def mark(value: str) -> Manifest:
    """Returns a filter by which responses say which version of a rule they came by."""
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-mark", "value": value}]}}


def rewrite(prefix: str) -> Manifest:
    """Returns a filter that gives the backend another path."""
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": prefix}
    return {"type": "URLRewrite", "urlRewrite": {"path": path}}


def redirect(hostname: str) -> Manifest:
    """Returns a filter that sends clients elsewhere."""
    return {"type": "RequestRedirect", "requestRedirect": {"hostname": hostname, "statusCode": 302}}
