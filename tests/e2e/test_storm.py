"""No request fails, and Envoys end with what a cold start gives, however changes and restarts come together."""

from __future__ import annotations

import random

import pytest

from tests.support.storm.agreement import differences, troubles
from tests.support.storm.rig import Rig, rig
from tests.support.storm.storm import Plan, storm_over

pytestmark = [pytest.mark.serial, pytest.mark.usefixtures("envoys_as_ever")]

# benchmarks/storm.py has the big one.
PLAN = Plan(
    adds=80,
    edits=32,
    removals=30,
    reorderings=6,
    policies=20,
    gateway_edits=10,
    rotations=4,
    endpoint_moves=6,
    restarts=2,
)
FEW = Plan(
    adds=0, edits=6, removals=0, reorderings=0, policies=0, gateway_edits=0, rotations=0, endpoint_moves=0, restarts=0
)
SEEDS = 3
STEPS = 30


async def test_no_request_fails_in_a_storm_of_changes_and_restarts() -> None:
    async with rig(100) as storming, storm_over(storming, PLAN) as storm:
        storming.traffic.go()
        await storm.run(PLAN)
        found = await differences(storming)
        await storming.traffic.pause()
        _none_failed(storming)
        assert found == [], "Envoys have something else than a cold start gives them"
        assert await troubles(storming) == []
        assert storming.traffic.reached_per_s >= 200


async def test_envoys_end_with_what_a_cold_start_gives_them_however_changes_interleave() -> None:
    async with rig(30, envoys=1) as storming, storm_over(storming, FEW) as storm:
        storming.traffic.go()
        for seed in range(SEEDS):
            await storm.interleave(STEPS, random.Random(seed), restarts=seed % 2 == 1)
            found = await differences(storming, drained=False)
            assert found == [], f"seed {seed}: Envoy has something else than a cold start gives it"
            storming.traffic.settle()
            _none_failed(storming, f"by seed {seed}: ")
        assert await differences(storming) == []
        await storming.traffic.pause()
        _none_failed(storming)
        assert await troubles(storming) == []


def _none_failed(storming: Rig, when: str = "") -> None:
    if storming.traffic.failed:
        pytest.fail(f"{when}{storming.traffic.report()}")
