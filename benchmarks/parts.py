"""The parts of a run: what each measures, in which order, and each in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import uvloop
from rich.console import Console

from benchmarks import (
    cluster,
    control_plane,
    engine,
    engine_policies,
    guarded,
    limiter,
    request_cost,
    restart,
    services,
    storm,
    swarm,
)
from benchmarks.peers import Peers
from benchmarks.rows import Row
from benchmarks.scene import scene

KINDS: Final = (
    "engine",
    "policies",
    "control-plane",
    "restart",
    "swarm",
    "envoy",
    "storm",
    "services",
    "limiter",
    "guarded",
    "cluster",
)
FEW_ROUTES: Final = 10
_WITHIN_S: Final = 900.0
_END_WITHIN_S: Final = 10.0
# Beyond so many, one host tells nothing that a smaller one does not.
_MOST_IN_A_HOST: Final = 10_000
# The sizes that have budgets: what grows evenly between them is measured at these alone.
_TELLING: Final = (1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is to measure."""

    routes: Sequence[int]
    changes: int
    kinds: frozenset[str]
    peers: Peers
    in_cluster: Sequence[int] = ()
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A measurement with a title; what it returns is measured in a process of its own."""

    kind: str
    title: str
    measure: Callable[[], Awaitable[list[Row]]]

    def run(self, *, within_s: float = _WITHIN_S) -> tuple[list[Row], float]:
        """Returns the rows, and how many seconds it took; raises RuntimeError where it failed or took too long."""
        # Its own process: what one has done to memory, collector and caches is nothing to the next.
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        began_at = time.perf_counter()
        process = context.Process(target=_measure, args=(self.measure, ours), daemon=False)
        process.start()
        ours.close()
        try:
            outcome = theirs.recv() if theirs.poll(within_s) else f"it took longer than {within_s:.0f} s"
        except EOFError:
            outcome = "its process has ended"
        finally:
            process.terminate()
            process.join(_END_WITHIN_S)
            process.kill()
        if isinstance(outcome, str):
            raise RuntimeError(outcome)
        return outcome, time.perf_counter() - began_at


def parts(wanted: Wanted) -> Iterator[Part]:
    """Yields the parts of a run, the cheap and telling ones first."""
    for kind, title, measure in _all(wanted):
        if kind in wanted.kinds:
            yield Part(kind, title, measure)


def _all(wanted: Wanted) -> Iterator[tuple[str, str, Callable[[], Awaitable[list[Row]]]]]:
    few, changes = [number for number in wanted.routes if number <= _MOST_IN_A_HOST], wanted.changes
    telling = [number for number in few if number in _TELLING] or few
    for number in wanted.routes:
        yield "engine", f"{number} routes: the engine alone", partial(engine.measure, number, changes=changes)
    for number in telling:
        measure = partial(engine_policies.measure, number)
        yield "policies", f"{number} routes: policies, endpoints and bursts, the engine alone", measure
    for number in wanted.routes:
        measure = partial(control_plane.measure, number, changes=changes)
        yield "control-plane", f"{number} routes: cold start, {changes} changes", measure
    for number in telling:
        yield "restart", f"{number} routes: restarts", partial(restart.measure, number)
    for number in (1_000,) if wanted.quick else (1_000, 10_000):
        yield "swarm", f"1000 connected Envoys, {number} routes", partial(swarm.measure, routes=[number])
    yield "envoy", "Envoy's CPU a request, by routes in one host", partial(_request_costs, few)
    if few and not wanted.quick:
        yield "envoy", "Envoy's CPU a request, by what routes ask for", partial(request_cost.measure, max(few))
    plan = storm.SHORT if wanted.quick else storm.PLAN
    yield "storm", "a storm of changes and restarts", partial(storm.measure, plan=plan)
    yield "storm", "changes that interleave at random", storm.interleavings
    yield "services", "verdicts, asked by gRPC", partial(services.measure, wanted.peers.authz, quick=wanted.quick)
    decisions = partial(limiter.measure, wanted.peers.ratelimit, quick=wanted.quick)
    yield "limiter", "rate-limit decisions, asked by gRPC", decisions
    yield "guarded", "requests through Envoy, guarded in each way", partial(guarded.measure, wanted.peers)
    for number in wanted.in_cluster:
        yield "cluster", f"{number} routes in a Kubernetes cluster", partial(cluster.measure, number, changes=changes)


async def _request_costs(routes: Sequence[int]) -> list[Row]:
    rows: list[Row] = []
    few_us = 0.0
    for number in (FEW_ROUTES, *routes):
        async with scene(number, routes_a_host=number) as up:
            cost_us = await request_cost.cpu_us_per_request(up)
        if number == FEW_ROUTES:
            few_us = cost_us
            rows.append(Row(f"Envoy CPU a request, {number} routes in one host", cost_us, "µs"))
            continue
        rows.append(Row.at(number, "Envoy CPU a request, N routes in one host", cost_us, "µs"))
        ratio, budget = cost_us / few_us, {number: request_cost.MOST_TIMES}
        rows.append(Row.at(number, f"the same, N routes against {FEW_ROUTES}", ratio, "×", budget))
    return rows


def _measure(measure: Callable[[], Awaitable[list[Row]]], to: Connection) -> None:
    # What is started here may be ended by a signal to this process, and is then to be cleaned up after.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:

        async def run() -> list[Row]:
            return await measure()

        to.send(uvloop.run(run()))
    except Exception as fault:
        to.send("\n".join([f"{type(fault).__name__}: {fault}", *getattr(fault, "__notes__", ())]))


def console() -> Console:
    """Returns what to print on, wide where it is no terminal."""
    made = Console()
    return made if made.is_terminal else Console(width=140)
