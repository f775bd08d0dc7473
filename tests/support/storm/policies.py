"""Who changes what guards routes and what limits them; credentials that are good all along never stop being so."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.support import manifests as m
from tests.support.storm.judge import Ask, Target
from tests.support.storm.world import Manifest, World, host, route, rule
from tests.support.tokens import SigningKey, bearer, jwks

_OURS: Final = "dragoman.dev/v1alpha1"
_PLENTY: Final = 1_000_000_000
_AUDIENCE: Final = "storm"

GUARDS: Final = ("open", "token", "audience", "consumer")
LIMITS: Final = ("none", "local", "shared")


def with_token(ask: Ask, key: SigningKey) -> Ask:
    """Returns the request with a token."""
    return replace(ask, headers=bearer(key.token(aud=_AUDIENCE)))


def guard_for(name: str, key: SigningKey, *, version: int = 0, audience: bool = False) -> Manifest:
    """Returns a policy that asks for a token on a route; each version is another requirement."""
    inline = {"type": "Inline", "inline": json.dumps(jwks(key))}
    provider: Manifest = {"name": f"main-{version}", "issuer": "https://issuer.example", "localJWKS": inline}
    if audience:
        provider["audiences"] = [_AUDIENCE, f"version-{version}"]
    return _policy("SecurityPolicy", name, {"jwt": {"providers": [provider]}})


def _policy(kind: str, name: str, spec: Mapping[str, Any]) -> Manifest:
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}
    return m.manifest(_OURS, kind, name, {"targetRefs": [target], **spec})


@dataclass(slots=True)
class Guarded:
    """A route that is guarded in one way after another; asked with a token, with a key, and with nothing."""

    number: int
    guard: str = "open"
    limit: str = "none"
    version: int = 0
    targets: dict[str, Target] = field(default_factory=dict[str, Target])

    @property
    def name(self) -> str:
        return f"guarded-{self.number}"

    def documents(self, key: SigningKey) -> list[Manifest]:
        """Returns what is declared of it."""
        made = [route(self.name, host(self.number), [rule(f"/{self.name}", "b0")])]
        if self.guard in ("token", "audience"):
            made.append(guard_for(self.name, key, version=self.version, audience=self.guard == "audience"))
        elif self.guard == "consumer":
            headers = ["x-api-key", f"x-key-{self.version}"]
            made.append(_policy("SecurityPolicy", self.name, {"consumers": {"extractFrom": [{"headers": headers}]}}))
        limit = {"limit": {"requests": _PLENTY + self.version, "unit": "Hour"}}
        if self.limit == "local":
            made.append(_limits(self.name, {"type": "Local", "local": {"rules": [limit]}}))
        elif self.limit == "shared":
            made.append(_limits(self.name, {"type": "Global", "global": {"rules": [limit]}}))
        return made

    def moves(self) -> dict[Target, str]:
        """Returns what each is answered then."""
        passing = {"open": {"nothing", "token", "key"}, "consumer": {"key"}}.get(self.guard, {"token"})
        return {target: "200 b0" if who in passing else "401" for who, target in self.targets.items()}


def _limits(name: str, limit: Mapping[str, Any]) -> Manifest:
    return _policy("BackendTrafficPolicy", name, {"rateLimit": limit})


@dataclass(slots=True)
class Guardian:
    """Gives routes other guards and limits."""

    world: World
    random: random.Random
    key: SigningKey
    consumer: str
    routes: list[Guarded] = field(default_factory=list[Guarded])
    done: int = 0

    async def begin(self, routes: int) -> None:
        """Writes the routes, and waits for them."""
        for number in range(routes):
            guarded, ask = Guarded(number), Ask(f"/guarded-{number}", host(number))
            with_key = replace(ask, headers={"x-api-key": self.consumer})
            for who, each in (("nothing", ask), ("token", with_token(ask, self.key)), ("key", with_key)):
                guarded.targets[who] = Target(each, frozenset({"404"}))
            self.routes.append(guarded)
            self.world.begin(guarded.moves(), lambda guarded=guarded: self._write(guarded))
        targets = [target for guarded in self.routes for target in guarded.targets.values()]
        await self.world.traffic.confirm(targets)
        self.world.traffic.watch(*targets)

    async def run(self, edits: int) -> None:
        """Makes so many changes, of all routes in turns."""
        while self.done < edits:
            await self.change()
            await asyncio.sleep(self.random.uniform(0, 0.05))

    async def change(self, *, wait: bool = True) -> None:
        """Makes one change: another guard, another limit, or both."""
        guarded = self.routes[self.done % len(self.routes)]
        self.done += 1
        if self.random.random() < 0.7:
            guarded.guard = self.random.choice([each for each in GUARDS if each != guarded.guard])
        if self.random.random() < 0.5:
            guarded.limit = self.random.choice(LIMITS)
        # What Envoy and the services know of the versions before must not do for this one.
        guarded.version = self.done
        if wait:
            await self.world.change(guarded.moves(), lambda: self._write(guarded))
        else:
            self.world.begin(guarded.moves(), lambda: self._write(guarded))

    def _write(self, guarded: Guarded) -> None:
        note = f"{guarded.name}: guard {guarded.guard}, limit {guarded.limit}"
        self.world.write(f"{guarded.name}.yaml", *guarded.documents(self.key), note=note)
