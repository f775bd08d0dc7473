"""Runs the measurements, prints them as a table and writes `benchmarks/latest.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks import control_plane, engine, guarded, services, swarm
from benchmarks.peers import Peers
from benchmarks.request_cost import cpu_us_per_request
from benchmarks.rows import Row, print_table, write_json, write_markdown
from benchmarks.scene import scene

PARTS = ("engine", "control-plane", "swarm", "envoy", "services", "guarded")
FEW_ROUTES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the options ask for; returns 1 where a budget is not kept and `--strict` was given."""
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
    rows = uvloop.run(_measure(options.routes, options.changes, frozenset(options.only), peers, console))
    print_table(rows, console)
    write_json(rows, options.json)
    console.print(f"written to {options.json}")
    if options.docs:
        write_markdown(rows, Path(__file__).parent.parent / "docs" / "benchmarks.md")
    return 1 if options.strict and any(row.kept is False for row in rows) else 0


async def _measure(
    routes: Sequence[int], changes: int, only: frozenset[str], peers: Peers, console: Console
) -> list[Row]:
    rows: list[Row] = []
    for number in routes if "engine" in only else ():
        console.print(f"{number} routes: the engine alone …")
        rows += await engine.measure(number, changes=changes)
    for number in routes if "control-plane" in only else ():
        console.print(f"{number} routes: cold start, {changes} changes …")
        async with scene(number) as up:
            rows += await control_plane.measure(up, changes=changes)
    if "swarm" in only:
        console.print("1000 connected Envoys …")
        rows += await swarm.measure()
    if "envoy" in only:
        rows += await _request_costs(routes, console)
    if "services" in only:
        console.print("the services, asked by gRPC …")
        rows += await services.measure(peers)
    if "guarded" in only:
        console.print("requests through Envoy, guarded in each way …")
        rows += await guarded.measure(peers)
    return rows


async def _request_costs(routes: Sequence[int], console: Console) -> list[Row]:
    rows: list[Row] = []
    few_us = 0.0
    for number in (FEW_ROUTES, *routes):
        console.print(f"{number} routes in one host: Envoy's CPU a request …")
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
