"""Who changes the Gateway: listeners come, change and go, and certificates are replaced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support import manifests as m
from tests.support.ports import free_ports
from tests.support.storm.judge import BROKEN, REFUSED, Ask, Target
from tests.support.storm.world import Manifest, World, rule

_ANSWER = "200 b1"


@dataclass(frozen=True, slots=True)
class Variant:
    """A way in which a listener may be declared, what is asked for by it, and what is answered while it is not."""

    spec: Manifest
    target: Target
    absent: str


@dataclass(slots=True)
class Listening:
    """A listener that comes, changes and goes, with a route of its own. `now` is the variant that is declared."""

    name: str
    variants: Sequence[Variant]
    now: Variant | None = None

    def moves(self) -> dict[Target, str]:
        """Returns what each variant answers as it is declared now."""
        return {each.target: _ANSWER if each is self.now else each.absent for each in self.variants}


@dataclass(slots=True)
class GatewayEditor:
    """Adds, changes and removes listeners: on ports of their own, by host name, and in TLS with names of their own."""

    world: World
    random: random.Random
    listeners: list[Listening] = field(default_factory=list[Listening])
    done: int = 0
    rotations: int = 0

    async def begin(self) -> None:
        """Declares the routes and certificates of the listeners that are to come."""
        self.listeners = [
            Listening("port", [_on_port(port) for port in free_ports(2)]),
            Listening("vip", [_by_host(name, self.world.http) for name in ("vip", "vip-too")]),
            Listening("tls", [_in_tls(name, self.world.https) for name in ("tls", "tls-too")]),
        ]
        for each in self.listeners:
            parent = [{"name": "edge", "sectionName": each.name}]
            spec = {"parentRefs": parent, "rules": [rule(f"/{each.name}", "b1")]}
            document = m.manifest(m.GATEWAY_API, "HTTPRoute", f"of-{each.name}", spec)
            self.world.write(f"listener-{each.name}.yaml", document)
        for name in ("tls", "tls-too"):
            self._certify(name)
        self.world.traffic.watch(*(variant.target for each in self.listeners for variant in each.variants))

    async def run(self, edits: int) -> None:
        """Makes so many edits."""
        while self.done < edits:
            await self.edit()
            await asyncio.sleep(self.random.uniform(0, 0.1))

    async def edit(self, *, wait: bool = True) -> None:
        """Adds, changes or removes a listener."""
        self.done += 1
        listening = self.random.choice(self.listeners)
        listening.now = self.random.choice([each for each in (None, *listening.variants) if each is not listening.now])
        specs = [{"name": each.name, **each.now.spec} for each in self.listeners if each.now is not None]
        told = "removed" if listening.now is None else f"is now for {listening.now.target.name}"

        def write() -> None:
            self.world.gateway(*specs, note=f"listener {listening.name} {told}")

        moves = {target: answer for target, answer in listening.moves().items() if target.now != {answer} or not wait}
        if wait:
            await self.world.change(moves, write)
        else:
            self.world.begin(moves, write)

    async def rotate(self, times: int, *, every_s: float = 0.3) -> None:
        """Replaces certificates of HTTPS listeners so many times."""
        while self.rotations < times:
            self.rotations += 1
            if self.rotations % 2:
                self.world.certificate()
            else:
                self._certify("tls")
            await asyncio.sleep(every_s)

    def _certify(self, name: str) -> None:
        leaf = self.world.authority.leaf(f"{name}.storm.example")
        self.world.write(f"{name}-cert.yaml", leaf.secret("demo", f"{name}-cert"), note=f"{name} has a new certificate")


def _on_port(port: int) -> Variant:
    ask = Ask("/port", f"port-{port}.storm.example", port=port)
    # A connection that nobody has accepted yet goes with the listener.
    target = Target(ask, frozenset({REFUSED}), doors=("http",), between=frozenset({BROKEN}))
    return Variant({"port": port, "protocol": "HTTP"}, target, REFUSED)


def _by_host(name: str, port: int) -> Variant:
    hostname = f"{name}.storm.example"
    target = Target(Ask("/vip", hostname), frozenset({"404"}), doors=("http",))
    return Variant({"port": port, "protocol": "HTTP", "hostname": hostname}, target, "404")


def _in_tls(name: str, port: int) -> Variant:
    hostname = f"{name}.storm.example"
    ask = Ask("/tls", hostname, sni=hostname)
    # The chain of a name goes first, then what the listener without one says of that host: not here (421).
    target = Target(ask, frozenset({"404"}), doors=("https",), between=frozenset({"421"}))
    certificate = {"certificateRefs": [{"name": f"{name}-cert"}]}
    return Variant({"port": port, "protocol": "HTTPS", "hostname": hostname, "tls": certificate}, target, "404")
