"""Runs the measurements, prints them as tables and writes `benchmarks/latest.json`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmarks.parts import KINDS, Part, Wanted, console, parts
from benchmarks.peers import Peers
from benchmarks.rows import Row, print_sizes, print_table, read_json, write_json, write_markdown
from tests.support.cluster_rig import why_no_rig

_ROUTES = (100, 1_000, 5_000, 10_000, 50_000)
_QUICK_ROUTES = (1_000, 10_000)
# The API server takes minutes for what a folder takes seconds.
_IN_A_CLUSTER = (1_000, 10_000)
# Where on the page the rows of a kind stand, if not with all others.
_MARKS = {"limiter": "figures of the rate limiter", "cluster": "figures in Kubernetes"}
_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the options ask for; returns 1 where a part has failed, or, with `--strict`, a budget is not kept."""
    options = _parser().parse_args(argv)
    to = console()
    kinds = frozenset(options.only)
    reason = "it is to be quick" if options.quick else why_no_rig()
    if "cluster" in kinds and reason:
        kinds -= {"cluster"}
        to.print(f"left out, in a Kubernetes cluster: {escape(reason)}")
    routes = options.routes or (_QUICK_ROUTES if options.quick else _ROUTES)
    peers, in_cluster = Peers(options.peer_ratelimit, options.peer_authz), options.routes or _IN_A_CLUSTER
    wanted = Wanted(routes, options.changes, kinds, peers, in_cluster, options.quick)
    planned = list(parts(wanted))
    known = read_json(options.json) if options.resume else {}
    rows, whole = _measure(planned, known, options.json, to)
    every = [row for found in rows.values() for row in found]
    print_sizes(every, to)
    print_table(every, to)
    to.print(f"written to {options.json}")
    if options.docs:
        marks = {part.title: _MARKS.get(part.kind, "figures") for part in planned}
        for mark in ("figures", *_MARKS.values()):
            found = [row for title, each in rows.items() if marks[title] == mark for row in each]
            write_markdown(found, _PAGE, mark=mark)
    kept = not (options.strict and any(row.kept is False for row in every))
    return 0 if whole and kept else 1


def _measure(
    planned: Sequence[Part], known: dict[str, list[Row]], path: Path, to: Console
) -> tuple[dict[str, list[Row]], bool]:
    """Returns the rows by part, and whether all could be measured; one that fails does not cost the others theirs."""
    rows: dict[str, list[Row]] = {}
    whole, began_at = True, time.perf_counter()
    for part in planned:
        if part.title in known:
            rows[part.title] = known[part.title]
            continue
        to.print(f"{part.title} …", end="")
        try:
            rows[part.title], took_s = part.run()
            to.print(f" {took_s:.0f} s")
        except RuntimeError as fault:
            whole = False
            to.print(f"\n[red]not measured:[/] {escape(str(fault))}")
        # After each, so that a run that is cut off can be resumed.
        write_json(rows, path)
    to.print(f"measured in {(time.perf_counter() - began_at) / 60:.1f} minutes")
    return rows, whole


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    sizes = " ".join(map(str, _ROUTES))
    parser.add_argument("--routes", type=int, nargs="+", help=f"numbers of HTTPRoutes [default: {sizes}]")
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 routes, and shorter storms")
    parser.add_argument("--changes", type=int, default=15, help="changes that are timed, for each number of routes")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS), help="what to measure")
    parser.add_argument("--resume", action="store_true", help="leave out what was measured at this commit already")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "latest.json", help="where to write")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/benchmarks.md too")
    parser.add_argument("--peer-ratelimit", type=Path, help="a binary of envoyproxy/ratelimit to measure beside ours")
    parser.add_argument(
        "--peer-authz", type=Path, help="a binary of an ext_authz server (--listen unix:PATH), likewise"
    )
    parser.add_argument("--strict", action="store_true", help="fail where a budget is not kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
