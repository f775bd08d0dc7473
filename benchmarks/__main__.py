"""Runs the measurements, prints them as a table and writes `benchmarks/latest.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import uvloop
from rich.console import Console
from rich.markup import escape

from benchmarks import cluster, control_plane, engine, guarded, services, swarm
from benchmarks.peers import Peers
from benchmarks.request_cost import cpu_us_per_request
from benchmarks.rows import Row, print_table, write_json, write_markdown
from benchmarks.scene import scene
from tests.support.cluster_rig import why_no_rig

PARTS = ("engine", "control-plane", "swarm", "envoy", "services", "guarded", "cluster")
FEW_ROUTES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the options ask for; returns 1 where a part has failed, or, with `--strict`, a budget is not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--routes", type=int, nargs="+", default=[1_000, 10_000], help="numbers of HTTPRoutes")
    parser.add_argument("--changes", type=int, default=15, help="changes that are timed, for each number of routes")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="what to measure")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "latest.json", help="where to write")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/benchmarks.md too")
    parser.add_argument("--peer-ratelimit", type=Path, help="a binary of envoyproxy/ratelimit to measure beside ours")
    parser.add_argument(
        "--peer-authz", type=Path, help="a binary of an ext_authz server (--listen unix:PATH), likewise"
    )
    parser.add_argument("--strict", action="store_true", help="fail where a budget is not kept")
    options = parser.parse_args(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    peers = Peers(options.peer_ratelimit, options.peer_authz)
    only = frozenset(options.only)
    if "cluster" in only and (reason := why_no_rig()):
        only -= {"cluster"}
        console.print(f"left out, in a Kubernetes cluster: {escape(reason)}")
    rows, whole = uvloop.run(_measure(_parts(options.routes, options.changes, only, peers), console))
    in_cluster, all_of_it = uvloop.run(_measure(_cluster_parts(options.routes, options.changes, only), console))
    print_table([*rows, *in_cluster], console)
    write_json([*rows, *in_cluster], options.json)
    console.print(f"written to {options.json}")
    if options.docs:
        page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
        write_markdown(rows, page, mark="figures")
        write_markdown(in_cluster, page, mark="figures in Kubernetes")
    kept = not (options.strict and any(row.kept is False for row in (*rows, *in_cluster)))
    return 0 if whole and all_of_it and kept else 1


_Part = tuple[str, Callable[[], Awaitable[list[Row]]]]


async def _measure(parts: Iterable[_Part], console: Console) -> tuple[list[Row], bool]:
    """Returns all rows, and whether every part could be measured; one that fails does not cost the others theirs."""
    rows: list[Row] = []
    whole = True
    for title, measure in parts:
        console.print(f"{title} …")
        try:
            rows += await measure()
        except Exception as fault:
            whole = False
            console.print(f"[red]not measured:[/] {escape(str(fault))}")
    return rows, whole


def _parts(routes: Sequence[int], changes: int, only: frozenset[str], peers: Peers) -> Iterator[_Part]:
    for number in routes if "engine" in only else ():
        yield f"{number} routes: the engine alone", partial(engine.measure, number, changes=changes)
    for number in routes if "control-plane" in only else ():
        yield f"{number} routes: cold start, {changes} changes", partial(_control_plane, number, changes)
    if "swarm" in only:
        yield "1000 connected Envoys", swarm.measure
    if "envoy" in only:
        yield "Envoy's CPU a request, by routes in one host", partial(_request_costs, routes)
    if "services" in only:
        yield "the services, asked by gRPC", partial(services.measure, peers)
    if "guarded" in only:
        yield "requests through Envoy, guarded in each way", partial(guarded.measure, peers)


def _cluster_parts(routes: Sequence[int], changes: int, only: frozenset[str]) -> Iterator[_Part]:
    for number in routes if "cluster" in only else ():
        yield f"{number} routes in a Kubernetes cluster", partial(cluster.measure, number, changes=changes)


async def _control_plane(routes: int, changes: int) -> list[Row]:
    async with scene(routes) as up:
        return await control_plane.measure(up, changes=changes)


async def _request_costs(routes: Sequence[int]) -> list[Row]:
    rows: list[Row] = []
    few_us = 0.0
    for number in (FEW_ROUTES, *routes):
        async with scene(number, routes_a_host=number) as up:
            cost_us = await cpu_us_per_request(up)
        rows.append(Row(f"Envoy CPU a request, {number} routes in one host", cost_us, "µs"))
        if number == FEW_ROUTES:
            few_us = cost_us
        else:
            rows.append(Row(f"the same, {number} routes against {FEW_ROUTES}", cost_us / few_us, "×", 1.2))
    return rows


if __name__ == "__main__":
    sys.exit(main())
