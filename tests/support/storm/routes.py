"""Who adds, edits, removes and reorders routes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support import manifests as m
from tests.support.storm.judge import Ask, Target
from tests.support.storm.policies import guard_for, with_token
from tests.support.storm.world import (
    BACKENDS,
    Manifest,
    Rule,
    World,
    host,
    mark,
    redirect,
    rewrite,
    route,
    rule,
    service,
)
from tests.support.tokens import SigningKey

_BURSTS: Final = (1, 1, 1, 2, 5, 20)
_ADDED_FROM: Final = 200_000
"""Added routes have numbers of their own; every third goes to a host that the base has."""


@dataclass(slots=True)
class Added:
    """A route that was added, as long as it is there."""

    file: str
    targets: list[Target]


@dataclass(slots=True)
class Adder:
    """Adds routes: alone and many at once, to old and to new hosts, some with backends or guards of their own."""

    world: World
    random: random.Random
    key: SigningKey
    base: int
    added: asyncio.Queue[Added] = field(default_factory=asyncio.Queue[Added])
    done: int = 0

    async def run(self, routes: int) -> None:
        """Adds so many."""
        while self.done < routes:
            burst = min(self.random.choice(_BURSTS), routes - self.done)
            await asyncio.gather(*(self.add() for _ in range(burst)))
            await asyncio.sleep(self.random.uniform(0, 0.02))

    async def add(self, *, wait: bool = True) -> Added:
        """Adds one, and waits until it is in force."""
        number = self.done
        self.done += 1
        documents, moves = self._made(number)
        added = Added(f"added-{number:05}.yaml", list(moves))
        self.world.traffic.watch(*moves)

        def write() -> None:
            self.world.write(added.file, *documents, note=f"added {', '.join(each.name for each in moves)}")

        if wait:
            await self.world.change(moves, write)
            self.added.put_nowait(added)
        else:
            self.world.begin(moves, write)
        return added

    def _made(self, number: int) -> tuple[list[Manifest], dict[Target, str]]:
        name, path = f"added-{number}", f"/added-{number}"
        hostname = host(self.random.randrange(self.base) if number % 3 == 0 else _ADDED_FROM + number)
        index = self.random.randrange(BACKENDS)
        backend, documents = f"b{index}", list[Manifest]()
        if number % 5 == 1:
            # A cluster that nobody has yet.
            backend = f"{name}-backend"
            documents += service(backend, self.world.backends[index])
        documents.append(route(name, hostname, [rule(path, backend)]))
        answer = f"200 b{index}"
        absent = frozenset({"404"})
        if number % 10 == 4:
            documents.append(guard_for(name, self.key, version=-number))
            known = Target(with_token(Ask(path, hostname), self.key), absent)
            return documents, {Target(Ask(path, hostname), absent): "401", known: answer}
        return documents, {Target(Ask(path, hostname), absent): answer}


@dataclass(slots=True)
class Remover:
    """Removes what was added, the oldest first."""

    world: World
    adder: Adder
    done: int = 0

    async def run(self, routes: int) -> None:
        """Removes so many; waits for them to be there."""
        while self.done < routes:
            await self.remove(await self.adder.added.get())

    async def remove(self, added: Added, *, wait: bool = True) -> None:
        """Removes one."""
        self.done += 1
        moves = dict.fromkeys(added.targets, "404")

        def remove() -> None:
            self.world.remove(added.file, note=f"removed {added.targets[0].name}")

        if wait:
            await self.world.change(moves, remove)
            self.world.traffic.forget(*added.targets)
        else:
            self.world.begin(moves, remove)


@dataclass(slots=True)
class Edited:
    """A route that is edited again and again: where it is now, and where it goes."""

    number: int
    host: str
    path: str
    backends: list[int]
    filters: list[Manifest] = field(default_factory=list[Manifest])
    version: int = 0
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    own: str = ""
    target: Target | None = None

    @property
    def name(self) -> str:
        return f"edited-{self.number}"

    def documents(self, ports: Sequence[int]) -> list[Manifest]:
        """Returns what is declared of it."""
        names = [self.own] if self.own else [f"b{index}" for index in self.backends]
        redirected = any(each["type"] == "RequestRedirect" for each in self.filters)
        filters = [*self.filters, mark(f"v{self.version}")]
        rules: list[Rule] = [rule(self.path, *(() if redirected else names), filters=filters, **self.more)]
        own = service(self.own, ports[self.backends[0]]) if self.own else []
        return [route(self.name, self.host, rules), *own]

    def answers(self) -> list[str]:
        """Returns what is answered then."""
        for each in self.filters:
            if each["type"] == "RequestRedirect":
                return [f"302 v{self.version} {each['requestRedirect']['hostname']}"]
        path = next((f" {each['urlRewrite']['path']['replacePrefixMatch']}" for each in self.filters), "")
        return [f"200 b{index} v{self.version}{path}" for index in self.backends]


@dataclass(slots=True)
class Editor:
    """Edits routes in every way: backends, paths, hosts, filters, timeouts; some edits are mistakes."""

    world: World
    random: random.Random
    base: int
    routes: list[Edited] = field(default_factory=list[Edited])
    done: int = 0

    async def begin(self, routes: int) -> None:
        """Writes the routes that are edited, and waits for them."""
        for number in range(routes):
            edited = Edited(number, host(number % self.base), f"/edited-{number}", [number % BACKENDS])
            edited.target = Target(Ask(edited.path, edited.host), frozenset({"404"}))
            self.routes.append(edited)
            self.world.traffic.watch(edited.target)
            self.world.begin({edited.target: edited.answers()}, lambda edited=edited: self._write(edited, "made"))
        await self.world.traffic.confirm(each.target for each in self.routes if each.target is not None)

    async def run(self, edits: int) -> None:
        """Makes so many edits, of all routes in turns."""
        while self.done < edits:
            await self.edit()
            await asyncio.sleep(self.random.uniform(0, 0.02))

    async def edit(self, *, wait: bool = True) -> None:
        """Makes one edit."""
        edited = self.routes[self.done % len(self.routes)]
        self.done += 1
        how = self.random.choice((self._elsewhere, self._elsewhere, self._filters, self._path, self._host, self._more))
        if self.random.random() < 0.1:
            self._mistake(edited)
        moves = how(edited)

        def write() -> None:
            self._write(edited, how.__name__.strip("_"))

        if not wait:
            self.world.begin(moves, write)
            return
        await self.world.change(moves, write)
        self.world.traffic.forget(*(target for target in moves if target is not edited.target))

    def _write(self, edited: Edited, how: str) -> None:
        documents = edited.documents(self.world.backends)
        self.world.write(f"{edited.name}.yaml", *documents, note=f"{edited.name}: {how}, v{edited.version}")

    def _mistake(self, edited: Edited) -> None:
        """Writes what is refused: what was last good goes on."""
        bad = route(edited.name, edited.host, [rule("no slash", "b0")])
        own = service(edited.own, self.world.backends[edited.backends[0]]) if edited.own else []
        self.world.write(f"{edited.name}.yaml", bad, *own, note=f"{edited.name}: a mistake")

    def _stays(self, edited: Edited) -> Mapping[Target, list[str]]:
        edited.version += 1
        assert edited.target is not None
        return {edited.target: edited.answers()}

    def _elsewhere(self, edited: Edited) -> Mapping[Target, list[str]]:
        edited.backends = self.random.sample(range(BACKENDS), self.random.choice((1, 1, 2)))
        # Half of them to a cluster that nobody has had yet.
        own = len(edited.backends) == 1 and self.random.random() < 0.5
        edited.own = f"{edited.name}-{self.done}" if own else ""
        edited.filters = [each for each in edited.filters if each["type"] != "RequestRedirect"]
        return self._stays(edited)

    def _filters(self, edited: Edited) -> Mapping[Target, list[str]]:
        number = self.done
        edited.filters = self.random.choice(([], [rewrite(f"/rewritten-{number}")], [redirect(f"to-{number}.example")]))
        return self._stays(edited)

    def _more(self, edited: Edited) -> Mapping[Target, list[str]]:
        redirected = any(each["type"] == "RequestRedirect" for each in edited.filters)
        timeouts = {"timeouts": {"request": f"{self.random.randint(3, 9)}s"}}
        edited.more = (
            {} if redirected else self.random.choice(({}, timeouts, {"retry": {"attempts": 2, "codes": [503]}}))
        )
        return self._stays(edited)

    def _path(self, edited: Edited) -> Mapping[Target, list[str]]:
        edited.path = f"/edited-{edited.number}-{self.done}"
        return self._moved(edited)

    def _host(self, edited: Edited) -> Mapping[Target, list[str]]:
        edited.host = host(self.random.randrange(self.base))
        edited.path = f"/edited-{edited.number}-{self.done}"
        return self._moved(edited)

    def _moved(self, edited: Edited) -> Mapping[Target, list[str]]:
        edited.version += 1
        old = edited.target
        assert old is not None
        edited.target = Target(Ask(edited.path, edited.host), frozenset({"404"}))
        self.world.traffic.watch(edited.target)
        return {old: ["404"], edited.target: edited.answers()}


@dataclass(slots=True)
class Reorderer:
    """Puts the rules of a route into another order, again and again; what they answer stays."""

    world: World
    random: random.Random
    rules: int = 8
    done: int = 0

    @property
    def targets(self) -> list[Target]:
        return [
            Target(Ask(f"/rule-{number}", "rules.storm.example"), frozenset({f"200 b{number}"}))
            for number in range(self.rules)
        ]

    async def begin(self) -> None:
        """Writes the route, and waits for it."""
        self._write("made")
        targets = self.targets
        for target in targets:
            target.moves_to(target.now)
            target.now |= {"404"}
        await self.world.traffic.confirm(targets)
        self.world.traffic.watch(*targets)

    async def run(self, times: int, *, every_s: float = 0.2) -> None:
        """Reorders so many times."""
        while self.done < times:
            self.reorder()
            await asyncio.sleep(every_s)

    def reorder(self) -> None:
        """Reorders once."""
        self.done += 1
        self._write("in another order")

    def _write(self, how: str) -> None:
        rules = [rule(f"/rule-{number}", f"b{number}") for number in range(self.rules)]
        self.random.shuffle(rules)
        self.world.write("rules.yaml", m.route("rules", rules, hostnames=["rules.storm.example"]), note=f"rules {how}")
