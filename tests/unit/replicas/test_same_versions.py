"""Replicas that have the same objects publish the same bytes, so that an Envoy that moves is sent nothing it has."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.load import key_of
from controlplane.engine import LINGER_S, Engine
from controlplane.provision.kubernetes.ports import bind
from controlplane.replicas.versions import Versions
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.xds.resources import CLUSTER, LISTENER, Snapshot
from tests.support.certificates import Authority
from tests.support.waiting import until
from tests.unit.replicas.world import OWNER, World

FOLDER = Path(__file__).parent.parent / "golden"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))


class Fed:
    """An engine, and what it has published in all."""

    def __init__(self, key_sets: dict[str, str]) -> None:
        self.clock_s = 0.0
        self.engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC), clock=lambda: self.clock_s)
        self.published: dict[str, Snapshot] = {}
        self._hear(self.engine.take_key_sets(key_sets).snapshots)

    def take(self, raws: list[RawObject], *, at_once: bool) -> None:
        for batch in [raws] if at_once else [[raw] for raw in raws]:
            self._hear(self.engine.apply(Changes(tuple(batch))).snapshots)
            hosts = self.engine.pipeline.wanted_hosts()
            self._hear(self.engine.resolve(dict.fromkeys(hosts, ("192.0.2.1",))).snapshots)
        # What lingers for Envoys that had it is not there for those that had not.
        self.clock_s += LINGER_S
        self._hear(self.engine.age().snapshots)

    def versions(self) -> dict[str, str]:
        versions = Versions(self.published.get)
        return {owner: versions.of(owner) for owner in self.published}

    def resources(self) -> dict[tuple[str, str, str], str]:
        every = (
            (owner, type_url, each)
            for owner, snapshot in self.published.items()
            for type_url, found in snapshot.resources.items()
            for each in found.values()
        )
        return {(owner, type_url, each.name): each.version for owner, type_url, each in every}

    def _hear(self, snapshots: Any) -> None:
        for owner, snapshot in snapshots.items():
            if snapshot is None:
                self.published.pop(owner, None)
            else:
                self.published[owner] = snapshot


@pytest.mark.parametrize("case", CASES)
def test_the_order_in_which_objects_come_does_not_show_in_any_version(case: str) -> None:
    documents = [each for each in yaml.safe_load_all((FOLDER / f"{case}.in.yaml").read_text()) if each]
    key_sets = {uri: text for each in documents for uri, text in each.get("keySets", {}).items()}
    keyed = [(key_of(each), each) for each in documents if "keySets" not in each]
    raws = [RawObject(key, each, Origin("")) for key, each in keyed if key is not None]
    one = Fed(key_sets)
    one.take(raws, at_once=True)
    assert one.resources()
    for seed in range(3):
        other = Fed(key_sets)
        shuffled = random.Random(seed).sample(raws, len(raws))
        other.take(shuffled, at_once=seed == 0)
        assert other.resources() == one.resources()
        assert other.versions() == one.versions()


async def test_an_envoy_that_moves_is_sent_nothing_that_it_has(authority: Authority, stack: AsyncExitStack) -> None:
    world = World(authority)
    one, other = await world.replica(stack, "one"), await world.replica(stack, "two")
    async with one.envoy() as envoy:
        clusters, listeners = await envoy.fetch(CLUSTER), await envoy.fetch(LISTENER)
    had = [{each.name: each.version for each in response.resources} for response in (clusters, listeners)]
    assert all(had)
    await one.stop()
    async with other.envoy() as envoy:
        for type_url, versions in zip((CLUSTER, LISTENER), had, strict=True):
            response = await envoy.fetch(type_url, versions=versions)
            assert not response.resources
            assert not response.removed_resources
        await until(lambda: other.plane.cache.settled(OWNER), what="the last acknowledgement")
