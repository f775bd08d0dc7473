"""Steps follow one another by the time that they take: on a clock of the test's own, and with real files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.engine import Step
from controlplane.kube.access import fixed_access
from controlplane.kube.client import Api
from controlplane.pace import LONGEST_REST_S, Pace
from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.sources.kubernetes import KubernetesSource
from tests.support.kube_api import FakeKubeApi
from tests.support.kube_source import QUICK, route
from tests.support.waiting import until

_ROUTE = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{namespace: demo, name: route-{number}}}
spec: {{parentRefs: [{{name: edge}}], rules: [{{}}]}}
"""


class _Taken(NamedTuple):
    """A step: when it began and ended, and when the changes came that it took."""

    start: float
    end: float
    arrivals: tuple[float, ...]


class _World:
    """A source that collects what arrives, and steps of which each takes as long as the test says."""

    def __init__(self, arrivals: list[float], cost_s: Callable[[int], float]) -> None:
        self.now = 0.0
        self.steps: list[_Taken] = []
        self._arrivals = arrivals
        self._cost_s = cost_s

    async def run(self) -> list[_Taken]:
        pace = Pace(clock=lambda: self.now, sleep=self._sleep)
        left = iter(self._arrivals)
        waiting: list[float] = []
        upcoming = next(left, None)
        while upcoming is not None:
            self.now = max(self.now, upcoming)
            upcoming = self._collect(waiting, upcoming, left)
            start = self.now
            with pace.step():
                self.now += self._cost_s(len(waiting))
            self.steps.append(_Taken(start, self.now, tuple(waiting)))
            waiting.clear()
            await pace.rest()
        return self.steps

    def _collect(self, into: list[float], upcoming: float | None, left: Iterator[float]) -> float | None:
        while upcoming is not None and upcoming <= self.now:
            into.append(upcoming)
            upcoming = next(left, None)
        return upcoming

    async def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def _every(seconds: float, count: int, start: float = 1.0) -> list[float]:
    return [start + seconds * index for index in range(count)]


async def test_changes_that_come_one_by_one_are_taken_at_once() -> None:
    steps = await _World(_every(0.1, 50), lambda n: 0.01).run()
    assert [step.arrivals for step in steps] == [(step.start,) for step in steps]
    assert len(steps) == 50


async def test_a_change_right_after_a_step_waits_as_long_as_that_took() -> None:
    steps = await _World([1.0, 1.011], lambda n: 0.01).run()
    assert steps[1].start == pytest.approx(1.02)


async def test_a_burst_becomes_few_steps() -> None:
    steps = await _World(_every(0.00005, 5000), lambda n: 0.003 + 0.0002 * n).run()
    assert len(steps) <= 6
    assert sum(len(step.arrivals) for step in steps) == 5000


async def test_an_endless_stream_is_published_at_a_bounded_interval() -> None:
    steps = await _World(_every(0.002, 10_000), lambda n: 0.004 + 0.0001 * n).run()
    gaps = [after.start - before.end for before, after in pairwise(steps)]
    assert max(gaps) <= LONGEST_REST_S + 1e-9
    assert max(step.end - step.arrivals[0] for step in steps) <= 2 * LONGEST_REST_S


async def test_a_storm_that_goes_on_costs_less_than_a_fifth_of_the_time() -> None:
    steps = await _World(_every(0.002, 10_000), lambda n: 0.004).run()
    settled = [step for step in steps if step.start > 5]
    busy = sum(step.end - step.start for step in settled)
    assert busy / (settled[-1].end - settled[0].start) < 0.2


async def test_after_a_storm_a_single_change_is_taken_at_once() -> None:
    steps = await _World([*_every(0.001, 5000), 60.0, 60.2], lambda n: 0.005).run()
    assert [step.start for step in steps[-2:]] == [60.0, 60.2]


@given(
    gaps=st.lists(st.floats(0, 0.3), min_size=1, max_size=60),
    cost_s=st.floats(0.0001, 0.5),
)
def test_nothing_is_lost_and_nothing_waits_longer_than_a_step_and_a_rest(gaps: list[float], cost_s: float) -> None:
    arrivals = [1.0]
    for gap in gaps:
        arrivals.append(arrivals[-1] + gap)
    steps = asyncio.run(_World(arrivals, lambda n: cost_s).run())
    assert [each for step in steps for each in step.arrivals] == arrivals
    assert all(step.start - step.arrivals[0] <= cost_s + LONGEST_REST_S + 1e-9 for step in steps)


async def test_a_burst_of_files_is_few_steps_and_all_of_it_is_in_force(tmp_path: Path) -> None:
    folder, aside = tmp_path / "config", tmp_path / "aside"
    folder.mkdir()
    aside.mkdir()
    for number in range(600):
        (aside / f"{number}.yaml").write_text(_ROUTE.format(number=number))
    steps: list[Step] = []
    async with ControlPlane(FileSource(folder), bind=bind, listen={}, on_step=steps.append) as plane:
        before = len(steps)

        def rename() -> None:
            for number in range(600):
                os.replace(aside / f"{number}.yaml", folder / f"{number}.yaml")

        await asyncio.to_thread(rename)
        await until(lambda: len(plane.engine.origins) == 600, what="all routes to be there")
        taken = [len(step.changed) for step in steps[before:] if step.changed]
    assert sum(taken) == 600
    assert len(taken) <= 60


async def test_a_folder_that_changes_while_a_step_rests_does_not_keep_the_loop_busy(tmp_path: Path) -> None:
    source = FileSource(tmp_path)
    source.read()
    stop = asyncio.Event()
    found = source.watch(stop)
    (tmp_path / "a.yaml").write_text(_ROUTE.format(number=1))
    assert (await anext(found)).upserted
    (tmp_path / "b.yaml").write_text(_ROUTE.format(number=2))
    before = time.process_time()
    await asyncio.sleep(0.3)  # As a rest does: what is measured is what the loop does meanwhile.
    spent = time.process_time() - before
    assert (await anext(found)).upserted
    stop.set()
    await found.aclose()
    assert spent < 0.15


async def test_a_burst_of_api_objects_is_few_steps_each_with_when_it_was_seen() -> None:
    async with FakeKubeApi() as api:
        for kind in ("GatewayClass", "Gateway", "HTTPRoute"):
            api.define(kind)
        async with Api.over(fixed_access(api.url, token="test")) as client:
            source = KubernetesSource(client, tuning=QUICK)
            steps: list[Step] = []
            async with ControlPlane(source, bind=bind, listen={}, on_step=steps.append) as plane:
                await until(lambda: plane.ready, what="the first snapshot")
                begun = len(steps)
                for number in range(600):
                    api.put(route(f"r-{number}"))
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                await until(lambda: len(plane.engine.origins) == 600, what="all routes to be there", within_s=30)
                taken = [len(step.changed) for step in steps[begun:] if step.changed]
                waits = [change["stages_ms"]["wait"] for change in plane.tracer.changes()]
    assert sum(taken) == 600
    assert len(taken) <= 60
    assert max(waits) > 0
