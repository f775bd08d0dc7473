"""Who changes the Gateway: listeners come, change and go, and certificates are replaced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support import manifests as m
from tests.support.ports import free_port
from tests.support.storm.judge import BROKEN, REFUSED, Ask, Target
from tests.support.storm.world import Manifest, World, rule


@dataclass(slots=True)
class Listening:
    """A listener that comes and goes, with a route of its own, and what is asked for by it."""

    name: str
    spec: Manifest
    target: Target
    answer: str
    absent: str
    there: bool = False


@dataclass(slots=True)
class GatewayEditor:
    """Adds, changes and removes listeners: on a port of their own, by host name, and in TLS with their own names."""

    world: World
    random: random.Random
    listeners: list[Listening] = field(default_factory=list[Listening])
    done: int = 0
    rotations: int = 0

    async def begin(self) -> None:
        """Declares the routes and certificates of the listeners that are to come."""
        world = self.world
        port = free_port()
        names = ("vip", "tls")
        self.listeners = [
            _listening(
                "port", {"port": port, "protocol": "HTTP"}, Ask("/port", "port.storm.example", port=port), REFUSED
            ),
            _listening("vip", {"port": world.http, "protocol": "HTTP", "hostname": "vip.storm.example"}, None, "404"),
            _listening(
                "tls",
                {
                    "port": world.https,
                    "protocol": "HTTPS",
                    "hostname": "tls.storm.example",
                    "tls": {"certificateRefs": [{"name": "tls-cert"}]},
                },
                Ask("/tls", "tls.storm.example", sni="tls.storm.example"),
                "404",
            ),
        ]
        for name in ("port", *names):
            parent = [{"name": "edge", "sectionName": name}]
            spec = {"parentRefs": parent, "rules": [rule(f"/{name}", "b1")]}
            world.write(f"listener-{name}.yaml", m.manifest(m.GATEWAY_API, "HTTPRoute", f"of-{name}", spec))
        world.write("tls-cert.yaml", world.authority.leaf("tls.storm.example").secret("demo", "tls-cert"))

    async def run(self, edits: int) -> None:
        """Makes so many edits."""
        while self.done < edits:
            await self.edit()
            await asyncio.sleep(self.random.uniform(0, 0.1))

    async def edit(self, *, wait: bool = True) -> None:
        """Adds or removes a listener."""
        self.done += 1
        listening = self.random.choice(self.listeners)
        listening.there = not listening.there
        answer = listening.answer if listening.there else listening.absent
        note = f"listener {listening.name} {'added' if listening.there else 'removed'}"
        watched = listening.target in self.world.traffic.targets
        if listening.there and not watched:
            self.world.traffic.watch(listening.target)
        specs = [each.spec for each in self.listeners if each.there]

        def write() -> None:
            self.world.gateway(*specs, note=note)

        if wait:
            await self.world.change({listening.target: answer}, write)
        else:
            self.world.begin({listening.target: answer}, write)

    async def rotate(self, times: int, *, every_s: float = 0.3) -> None:
        """Replaces the certificate of the HTTPS listener so many times."""
        while self.rotations < times:
            self.rotations += 1
            self.world.certificate()
            await asyncio.sleep(every_s)


def _listening(name: str, spec: Mapping[str, Any], ask: Ask | None, absent: str) -> Listening:
    ask = ask or Ask(f"/{name}", f"{name}.storm.example")
    door = "https" if spec["protocol"] == "HTTPS" else "http"
    # A connection that nobody has accepted yet goes with the listener; of one with a name in TLS the chain goes first,
    # then what the other says of its host: not here (421).
    between = {REFUSED: frozenset({BROKEN})}.get(absent, frozenset({"421"}) if door == "https" else frozenset[str]())
    target = Target(ask, frozenset({absent}), doors=(door,), between=between)
    return Listening(name, {"name": name, **spec}, target, "200 b1", absent)
