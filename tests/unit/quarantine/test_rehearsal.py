"""What is risky is tried before anything of it is published; what Envoy refuses never gets there."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.meta import ObjectKey
from controlplane.provision.binary import find_envoy
from controlplane.quarantine.validator import NotValidatedError, Validator
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.xds.resources import ROUTE, Snapshot
from tests.support import manifests as m
from tests.support.waiting import until
from tests.unit.quarantine.world import BASE, OWNER, World


def expression(name: str, value: str) -> dict[str, Any]:
    match = {"path": {"type": "RegularExpression", "value": value}}
    return m.route(name, [{**m.to_backend("/", "echo"), "matches": [match]}])


class Judge:
    """Refuses what has `bad` in it; counts how often it is asked."""

    def __init__(self, refuses: Callable[[bytes], str | None] | None = None) -> None:
        self.asked = 0
        self._refuses = refuses or (lambda body: "it is not good" if b"bad" in body else None)

    async def refusal(self, snapshot: Snapshot, published: Snapshot | None) -> str | None:
        self.asked += 1
        await asyncio.sleep(0)
        found = (self._refuses(each.body) for each in snapshot.of_type(ROUTE).values())
        return next((message for message in found if message is not None), None)


class Rehearsed(World):
    """A world whose risky changes are tried first."""

    def with_judge(self, judge: Any) -> Rehearsed:
        self.quarantine.rehearsal.ask(judge, lambda work: work())
        self.connect()
        return self

    async def change(self, *documents: dict[str, Any]) -> None:
        raws = tuple(RawObject(_key(each), each, Origin("x")) for each in documents)
        self.quarantine.rehearsal.expect(Changes(raws))
        self._publish(self.engine.apply(Changes(raws)))
        await until(lambda: not self.quarantine.rehearsal.running, what="the rehearsal")
        self.settle()

    def texts(self) -> bytes:
        return b"".join(each.body for each in self.served().of_type(ROUTE).values())


def _key(document: dict[str, Any]) -> ObjectKey:
    from controlplane.api.load import key_of

    found = key_of(document)
    assert found is not None
    return found


async def test_what_is_refused_is_never_published_and_the_rest_is() -> None:
    judge = Judge()
    world = Rehearsed().with_judge(judge)
    await world.change(*BASE, expression("good", "/good.*"))
    seen: list[bytes] = []
    publish = world.cache.publish

    def published(snapshots: Any) -> None:
        seen.extend(each.body for snapshot in snapshots.values() for each in snapshot.of_type(ROUTE).values())
        publish(snapshots)

    world.cache.publish = published  # type: ignore[method-assign]
    await world.change(
        *(expression(f"r{number}", f"/{'bad' if number == 3 else 'fine'}{number}.*") for number in range(8)),
        m.route("plain", [m.to_backend("/plain", "echo")]),
    )
    assert world.quarantined == {"r3"}
    assert not any(b"/bad" in body for body in seen)
    for text in (b"/plain", b"/good", *(b"/fine%d" % number for number in range(8) if number != 3)):
        assert text in world.texts()
    assert "rejected by Envoy: it is not good" in world.said("r3")


async def test_the_last_good_version_serves_while_another_is_tried_and_after_it_is_refused() -> None:
    world = Rehearsed().with_judge(Judge())
    await world.change(*BASE, expression("route", "/first.*"))
    await world.change(expression("route", "/bad.*"))
    assert b"/first" in world.texts()
    assert "the last good version stays in force" in world.said("route")
    await world.change(expression("route", "/third.*"))
    assert b"/third" in world.texts()
    assert world.quarantined == set()


async def test_what_is_not_risky_is_not_tried() -> None:
    judge = Judge()
    world = Rehearsed().with_judge(judge)
    await world.change(*BASE, m.route("plain", [m.to_backend("/plain", "echo")]))
    assert judge.asked == 0
    assert b"/plain" in world.texts()


@pytest.mark.parametrize("failure", [NotValidatedError("it crashed"), RuntimeError("a fault of ours")])
async def test_where_envoy_cannot_be_asked_everything_is_published(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def refusal(self, snapshot: Snapshot, published: Snapshot | None) -> str | None:
            raise failure

    world = Rehearsed().with_judge(Broken())
    await world.change(*BASE, expression("route", "/any.*"))
    assert b"/any" in world.texts()
    assert world.quarantined == set()
    assert "published untried" in caplog.text


async def test_where_envoy_refuses_what_is_in_force_already_nobody_is_blamed() -> None:
    world = Rehearsed().with_judge(Judge(lambda body: "never"))
    await world.change(*BASE, m.route("plain", [m.to_backend("/plain", "echo")]))
    await world.change(expression("one", "/one.*"), expression("two", "/two.*"))
    assert world.quarantined == set()
    assert b"/one" in world.texts()


def snapshot_of(*documents: dict[str, Any]) -> Snapshot:
    world = World()
    world.apply([*BASE, *documents])
    found = world.cache.published(OWNER)
    assert found is not None
    return found


@pytest.fixture
def envoy() -> Path:
    found = find_envoy()
    assert found is not None
    return found


async def test_envoy_is_asked_with_its_own_limits(envoy: Path) -> None:
    snapshot = snapshot_of(expression("route", "/a[a-z]{60}"))
    assert await Validator(envoy).refusal(snapshot, None) is None
    strict = Validator(envoy, runtime={"re2.max_program_size.error_level": 40})
    assert "regex '/a[a-z]{60}'" in (await strict.refusal(snapshot, None) or "")
    assert await strict.refusal(snapshot, snapshot) is None
    assert await Validator(envoy).refusal(snapshot, None) is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "ended with -11"),
        ("exit 3", "ended with 3"),
        ("exec sleep 60", "took longer than"),
        (None, "does not run"),
    ],
)
async def test_an_envoy_that_fails_is_nobody_s_fault(tmp_path: Path, script: str | None, words: str) -> None:
    fake = tmp_path / "envoy"
    if script is not None:
        fake.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(NotValidatedError, match=words):
        await Validator(fake, within_s=0.3).refusal(snapshot_of(), None)
