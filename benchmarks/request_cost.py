# pyright: standard, reportAttributeAccessIssue=false
"""Envoy's own cost: CPU a request, by the number of routes and by what they ask for."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse

from benchmarks.cpu import cpu_s
from benchmarks.load import load
from benchmarks.rows import Row
from benchmarks.scene import Scene
from controlplane import ir
from controlplane.compile.precedence import match_rank
from controlplane.translate import routes as encoded
from controlplane.xds import resources as xds
from tests.support.envoy import Envoy
from tests.support.ports import free_port

# How much more a request may cost with all the routes than with ten.
MOST_TIMES = 1.2
_HOST = "example.com"
_FEW = 10


async def cpu_us_per_request(scene: Scene, *, requests: int = 8_000, rounds: int = 4) -> float:
    """Returns microseconds of Envoy's CPU a request to the last route: the least of some rounds, after a warm-up."""
    folder = scene.folder
    last = folder.routes - 1

    async def send(number: int) -> None:
        done = await load(folder.port, host=folder.host(last), path=folder.first_path(last), requests=number)
        if done.failed:
            raise RuntimeError(f"{done.failed} of {number} requests failed")

    return await _least(send, scene.envoy.process.pid, requests=requests, rounds=rounds)


async def measure(routes: int) -> list[Row]:
    """Measures what a request costs Envoy in one host of so many routes of one shape, against ten of that shape."""
    rows: list[Row] = []
    async with _envoy() as rig:
        for shape in SHAPES:
            # In turn, so that a busy moment of the machine meets both.
            turns = [[await rig.request_us(shape, number) for number in (_FEW, routes)] for _ in range(2)]
            few, many = map(min, zip(*turns, strict=True))
            name = f"Envoy CPU a request, {shape.name}"
            rows.append(Row(f"{name}: {_FEW} routes in a host", few, "µs"))
            rows.append(Row(f"{name}: {routes:,}", many, "µs"))
            rows.append(Row(f"{name}: {routes:,} against {_FEW}", many / few, "times", at_most=shape.most_times))
    return rows


@dataclass(frozen=True, slots=True)
class Shape:
    """Routes of one kind: the match of each by its number and how many there are, and a request for one of them."""

    name: str
    match: Callable[[int, int], ir.Match]
    path: Callable[[int], str]
    headers: Callable[[int], Mapping[str, str]] = lambda _: {}
    # Which is asked for: with -1 the last; with None none, but a path that no route matches.
    asked: int | None = -1
    most_times: float | None = MOST_TIMES

    def matches(self, number: int) -> list[ir.Match]:
        """Returns that many matches in the order of precedence."""
        return sorted((self.match(index, number) for index in range(number)), key=match_rank)


def _prefix(path: str) -> ir.PathMatch:
    return ir.PathMatch("PathPrefix", path)


def _header(index: int, _: int) -> ir.Match:
    return ir.Match(_prefix("/api"), headers=(ir.ValueMatch("x-tenant", f"tenant-{index}"),))


def _method_and_header(index: int, _: int) -> ir.Match:
    return ir.Match(_prefix("/api"), "GET", (ir.ValueMatch("x-tenant", f"tenant-{index}"),))


def _query(index: int, _: int) -> ir.Match:
    return ir.Match(_prefix("/api"), query=(ir.ValueMatch("tenant", f"tenant-{index}"),))


def _mixed(index: int, _: int) -> ir.Match:
    kinds: Sequence[ir.PathKind] = ("Exact", "PathPrefix")
    return ir.Match(ir.PathMatch(kinds[index % 2], f"/service-{index}/v1"))


def _expression(index: int, _: int) -> ir.Match:
    return ir.Match(ir.PathMatch("RegularExpression", f"/service-{index}/[^/]+/items/[0-9]+"))


def _expression_alike(index: int, _: int) -> ir.Match:
    return ir.Match(ir.PathMatch("RegularExpression", f"/[a-z]+/[0-9]+/items-{index}"))


def _expressions_among(number: int) -> Callable[[int, int], ir.Match]:
    def match(index: int, of: int) -> ir.Match:
        return _expression(index, of) if index % max(of // number, 2) == 0 else _mixed(index, of)

    return match


SHAPES = (
    Shape("prefixes", lambda index, _: ir.Match(_prefix(f"/service-{index}")), lambda last: f"/service-{last}/x"),
    Shape("exact paths and prefixes", _mixed, lambda last: f"/service-{last}/v1"),
    Shape("exact paths and prefixes, no route", _mixed, lambda _: "/nothing/of/this", asked=None),
    Shape("a header's value at one path", _header, lambda _: "/api", lambda last: {"x-tenant": f"tenant-{last}"}),
    Shape(
        "method and header at one path",
        _method_and_header,
        lambda _: "/api",
        lambda last: {"x-tenant": f"tenant-{last}"},
    ),
    Shape("a query parameter at one path", _query, lambda last: f"/api?a=b&tenant=tenant-{last}", most_times=None),
    Shape("expressions", _expression, lambda last: f"/service-{last}/x/items/12"),
    Shape("expressions that begin alike", _expression_alike, lambda last: f"/abc/12/items-{last}", most_times=None),
    Shape(
        "expressions that begin alike, no route",
        _expression_alike,
        lambda _: "/abc/12/other-1",
        asked=None,
        most_times=None,
    ),
    Shape("prefixes beside 100 expressions", _expressions_among(100), lambda last: f"/service-{last}/v1"),
)


@dataclass(slots=True)
class Rig:
    """An Envoy that takes its routes from a file."""

    folder: Path
    envoy: Envoy
    port: int
    pushed: int = field(default=0)

    async def request_us(self, shape: Shape, number: int, *, requests: int = 3_000, rounds: int = 3) -> float:
        """Returns microseconds of CPU a request: the least of some rounds, after a warm-up."""
        self.push(route_configuration(shape.matches(number)))
        last = number - 1
        want_failed = shape.asked is None

        async def send(count: int) -> int:
            done = await load(self.port, host=_HOST, path=shape.path(last), requests=count, headers=shape.headers(last))
            return done.answered if want_failed else done.failed

        async with asyncio.timeout(10):
            while await send(50):
                pass
        await self._settle()
        return await _least(send, self.envoy.process.pid, requests=requests, rounds=rounds)

    def push(self, configuration: bytes) -> None:
        """Gives Envoy other routes, at once."""
        self.pushed += 1
        answer = DiscoveryResponse(version_info=str(self.pushed), type_url=xds.ROUTE)
        resource = answer.resources.add()
        resource.type_url, resource.value = xds.ROUTE, configuration
        new = self.folder / "new"
        new.write_bytes(answer.SerializeToString())
        new.rename(self.folder / "routes.pb")

    async def change_ms(self, configurations: Sequence[bytes], *, rounds: int = 4) -> float:
        """Returns milliseconds of CPU that it takes Envoy to take in a change: the least of some rounds."""
        costs: list[float] = []
        for turn in range(rounds):
            before = cpu_s(self.envoy.process.pid)
            self.push(configurations[turn % len(configurations)])
            await asyncio.sleep(0.05)
            await self._settle()
            costs.append((cpu_s(self.envoy.process.pid) - before) * 1000)
        return min(costs)

    async def _settle(self) -> None:
        """Returns once Envoy has next to nothing to do."""
        now = cpu_s(self.envoy.process.pid)
        async with asyncio.timeout(20):
            while True:
                before = now
                await asyncio.sleep(0.1)
                now = cpu_s(self.envoy.process.pid)
                if now - before < 0.001:
                    return


def route_configuration(matches: Sequence[ir.Match], *, tree_from: int = 1, host: str = _HOST) -> bytes:
    """Encodes one host that answers by itself, its routes in a tree or, below so many, in a list."""
    found = [_route(match, number) for number, match in enumerate(matches)]
    if len(found) < tree_from:
        made = encoded.virtual_host(host, [encoded.route(each, port=80, https=False) for each in found])
    else:
        branches = [encoded.branch(each, port=80, https=False) for each in found]
        made = encoded.virtual_host_of_tree(host, [branches])
    return encoded.route_configuration("routes", [encoded.part(made)])


def _route(match: ir.Match, number: int) -> ir.Route:
    rule = ir.Rule(f"rule-{number}", (match,), ir.Respond(200, "ok"))
    return ir.Route(f"HTTPRoute/default/route-{number}/0", match, rule, ir.Policies(), "")


@asynccontextmanager
async def _envoy() -> AsyncIterator[Rig]:
    folder, port = Path(tempfile.mkdtemp(prefix="dgb-")), free_port()
    envoy = Envoy(_bootstrap(port, folder), log_level="warning")
    rig = Rig(folder, envoy, port)
    rig.push(route_configuration([]))
    try:
        await envoy.start()
        yield rig
    finally:
        await envoy.stop()
        shutil.rmtree(folder)


def _bootstrap(port: int, folder: Path) -> dict[str, Any]:
    prefix = "type.googleapis.com/envoy.extensions.filters"
    source = {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"{folder}/routes.pb", "watched_directory": {"path": os.fspath(folder)}},
    }
    manager = {
        "@type": f"{prefix}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "routes",
        "rds": {"route_config_name": "routes", "config_source": source},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{prefix}.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {"listeners": [{"name": "routes", "address": address, "filter_chains": [chain]}]},
    }


async def _least(send: Callable[[int], Any], pid: int, *, requests: int, rounds: int) -> float:
    await send(requests // 4)
    costs: list[float] = []
    for _ in range(rounds):
        before = cpu_s(pid)
        await send(requests)
        costs.append((cpu_s(pid) - before) / requests * 1e6)
    # Noise of other processes only ever adds.
    return min(costs)
