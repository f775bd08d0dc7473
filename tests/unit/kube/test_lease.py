from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.kube.errors import ApiError
from controlplane.kube.lease import ADDRESS_ANNOTATION, Document, Election, Holder, LeaseTiming, identity_of
from tests.support.waiting import until
from tests.unit.kube.virtual_time import run

PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/dragoman"


class Server:
    """One Lease, as an API server keeps it."""

    def __init__(self) -> None:
        self.lease: Document | None = None
        self._version = 0

    @property
    def spec(self) -> Document:
        assert self.lease is not None
        return self.lease["spec"]

    def store(self, document: Mapping[str, Any]) -> Document:
        self._version += 1
        self.lease = copy.deepcopy({**document})
        self.lease["metadata"] = {**document["metadata"], "resourceVersion": str(self._version)}
        return copy.deepcopy(self.lease)


class Wire:
    """The way of one candidate to the server: it can be slow, lose answers, or lead nowhere."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.there_s = 0.001
        self.back_s = 0.001
        self.down = False
        self.requests = 0

    async def get(self, path: str) -> Document:
        assert path == PATH
        return await self._go(self._get)

    async def create(self, path: str, document: Mapping[str, Any]) -> Document:
        assert path == PATH.removesuffix("/dragoman")
        return await self._go(lambda: self._create(document))

    async def replace(self, path: str, document: Mapping[str, Any]) -> Document:
        assert path == PATH
        return await self._go(lambda: self._replace(document))

    async def _go(self, act: Callable[[], Document]) -> Document:
        self.requests += 1
        if self.down:
            raise ApiError(0, "Unreachable", "no way")
        # What was sent arrives, whether or not the sender still waits.
        answer: asyncio.Future[Document] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            try:
                found = act()
            except ApiError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(found)

        asyncio.get_running_loop().call_later(self.there_s, arrive)
        found = await answer
        await asyncio.sleep(self.back_s)
        return found

    def _get(self) -> Document:
        if self.server.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        return copy.deepcopy(self.server.lease)

    def _create(self, document: Mapping[str, Any]) -> Document:
        if self.server.lease is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self.server.store(document)

    def _replace(self, document: Mapping[str, Any]) -> Document:
        if self.server.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        if document["metadata"]["resourceVersion"] != self.server.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has changed")
        return self.server.store(document)


class Candidate:
    def __init__(
        self, server: Server, name: str, *, skew: timedelta = timedelta(), jitter: float = 0.5, at: str = ""
    ) -> None:
        loop = asyncio.get_running_loop()
        self.wire = Wire(server)
        self.changes: list[tuple[float, bool]] = []
        self.election = Election(
            self.wire,
            namespace="system",
            name="dragoman",
            identity=name,
            address=at or f"{name}:18000",
            on_change=lambda leading: self.changes.append((loop.time(), leading)),
            clock=loop.time,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + skew + timedelta(seconds=loop.time()),
            jitter=lambda: jitter,
        )
        self.task = asyncio.create_task(self.election.run())

    @property
    def leading(self) -> bool:
        return self.election.leading

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test in virtual time."""

    def decorated() -> None:
        async def main() -> None:
            await test()

        run(main())

    decorated.__name__ = test.__name__
    return decorated


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_the_first_candidate_leads_and_says_where_it_is_reached() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(0.1)
    two = Candidate(server, "two")
    await asyncio.sleep(30)
    assert (one.leading, two.leading) == (True, False)
    assert two.election.holder == one.election.holder == Holder("one", "one:18000")
    assert [leading for _, leading in one.changes] == [True]
    assert two.changes == []
    assert server.spec["holderIdentity"] == "one"
    assert server.spec["leaseDurationSeconds"] == 15
    assert server.spec["leaseTransitions"] == 0
    assert server.lease is not None
    assert server.lease["metadata"]["annotations"] == {ADDRESS_ANNOTATION: "one:18000"}


@virtual
async def test_who_stops_lets_go_so_that_another_leads_at_once() -> None:
    server = Server()
    one, two = Candidate(server, "one"), Candidate(server, "two")
    await asyncio.sleep(5)
    leader, other = (one, two) if one.leading else (two, one)
    await leader.stop()
    assert not leader.leading
    assert [leading for _, leading in leader.changes] == [True, False]
    assert server.spec["holderIdentity"] == ""
    await asyncio.sleep(2.5)
    assert other.leading
    assert server.spec["leaseTransitions"] == 1


@virtual
async def test_a_dead_leader_is_followed_once_its_lease_has_run_out() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    two = Candidate(server, "two")
    await asyncio.sleep(1)
    one.wire.down = True
    await one.stop()
    died = now()
    await until(lambda: two.leading, what="the other to lead", every_s=0.1)
    assert 13 <= now() - died <= 18


@virtual
async def test_a_process_that_is_started_anew_in_its_pod_leads_at_once() -> None:
    server = Server()
    before = Candidate(server, identity_of("pod"), at="10.0.0.1:18000")
    await asyncio.sleep(1)
    before.wire.down = True
    await before.stop()
    after = Candidate(server, identity_of("pod"), at="10.0.0.1:18000")
    await asyncio.sleep(0.1)
    assert after.leading
    assert server.spec["leaseTransitions"] == 1


@virtual
async def test_neither_a_name_nor_an_address_alone_makes_a_successor() -> None:
    server = Server()
    before = Candidate(server, identity_of("pod"), at="10.0.0.1:18000")
    await asyncio.sleep(1)
    others = [
        Candidate(server, identity_of("pod"), at="10.0.0.2:18000"),
        Candidate(server, identity_of("other"), at="10.0.0.1:18000"),
    ]
    await asyncio.sleep(30)
    assert before.leading
    assert not any(other.leading for other in others)


@virtual
async def test_an_outage_of_the_api_ends_leading_within_the_deadline_and_it_goes_on_afterwards() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(5)
    one.wire.down = True
    began = now()
    await asyncio.sleep(7.9)
    assert one.leading
    await asyncio.sleep(2.2)
    assert not one.leading
    assert one.election.holder is None or now() - began < 15
    ended = next(when for when, leading in one.changes if not leading)
    assert ended - began <= 10.01
    await asyncio.sleep(60)
    assert one.election.holder is None
    one.wire.down = False
    await asyncio.sleep(2.5)
    assert one.leading
    assert [leading for _, leading in one.changes] == [True, False, True]
    assert server.spec["leaseTransitions"] == 0


@virtual
async def test_a_server_that_does_not_answer_ends_leading_in_time_too() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(5)
    one.wire.there_s = 3600
    began = now()
    await until(lambda: not one.leading, what="the end", every_s=0.05)
    assert now() - began <= 10.01
    ended = next(when for when, leading in one.changes if not leading)
    assert abs(ended - now()) < 0.1


@virtual
async def test_one_lost_answer_does_not_end_leading() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(5)
    one.wire.back_s = 3600
    await asyncio.sleep(4)
    one.wire.back_s = 0.001
    await asyncio.sleep(30)
    assert [leading for _, leading in one.changes] == [True]


@virtual
async def test_wall_clocks_do_not_matter() -> None:
    server = Server()
    one = Candidate(server, "one", skew=timedelta(days=-300))
    await asyncio.sleep(1)
    two = Candidate(server, "two", skew=timedelta(days=300))
    await asyncio.sleep(120)
    assert (one.leading, two.leading) == (True, False)


@virtual
async def test_who_finds_another_holder_leads_no_more() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    assert server.lease is not None
    server.store({**server.lease, "spec": {**server.spec, "holderIdentity": "somebody"}})
    await asyncio.sleep(2.5)
    assert not one.leading
    assert one.election.holder == Holder("somebody", "one:18000")


@virtual
async def test_what_others_write_on_the_lease_is_kept_and_harms_nobody() -> None:
    server = Server()
    one = Candidate(server, "one")
    for count in range(5):
        await asyncio.sleep(3)
        assert server.lease is not None
        lease = server.lease
        metadata = lease["metadata"]
        server.store({**lease, "metadata": {**metadata, "labels": {"count": str(count)}}})
    await asyncio.sleep(3)
    assert server.lease is not None
    assert server.lease["metadata"]["labels"] == {"count": "4"}
    assert [leading for _, leading in one.changes] == [True]


@virtual
async def test_a_lease_that_somebody_deletes_stays_with_its_holder() -> None:
    server = Server()
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    two = Candidate(server, "two")
    for _ in range(20):
        await asyncio.sleep(1.3)
        server.lease = None
    await asyncio.sleep(3)
    assert (one.leading, two.leading) == (True, False)
    assert two.changes == []


@virtual
async def test_who_is_stopped_while_it_takes_the_lease_lets_go_of_it() -> None:
    server = Server()
    one = Candidate(server, "one")
    one.wire.back_s = 0.5
    await asyncio.sleep(0.2)
    assert server.lease is not None
    assert not one.leading
    one.wire.back_s = 0.001
    await one.stop()
    assert server.spec["holderIdentity"] == ""


@virtual
async def test_a_listener_that_fails_does_not_end_the_election() -> None:
    server = Server()
    wire = Wire(server)

    def fail(leading: bool) -> None:
        raise RuntimeError(str(leading))

    election = Election(wire, namespace="system", name="dragoman", identity="x", on_change=fail, clock=now)
    task = asyncio.create_task(election.run())
    await asyncio.sleep(5)
    assert election.leading
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@virtual
async def test_a_lease_by_another_program_without_a_duration_is_respected() -> None:
    server = Server()
    server.store({"metadata": {"name": "dragoman"}, "spec": {"holderIdentity": "kubectl"}})
    one = Candidate(server, "one")
    await asyncio.sleep(14)
    assert not one.leading
    await asyncio.sleep(4)
    assert one.leading


@virtual
async def test_a_lease_that_nobody_has_written_to_is_taken() -> None:
    server = Server()
    server.store({"metadata": {"name": "dragoman"}})
    one = Candidate(server, "one")
    await asyncio.sleep(1)
    assert one.leading


def test_renewing_has_to_be_possible_before_the_lease_runs_out() -> None:
    with pytest.raises(ValueError, match="longer"):
        LeaseTiming(lease_s=10, renew_within_s=10)


def test_no_two_processes_have_one_identity() -> None:
    assert identity_of("dragoman-0") != identity_of("dragoman-0")
    assert identity_of("dragoman-0").startswith("dragoman-0_")


trouble = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["down", "up", "slow there", "slow back", "very slow", "stop", "start"]),
    st.floats(0.0, 20.0),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(trouble, max_size=14), st.integers(0, 1000))
def test_never_do_two_lead_and_in_the_end_one_does(troubles: list[tuple[int, str, float]], seed: int) -> None:
    run(_never_two(troubles, random.Random(seed)))


async def _never_two(troubles: list[tuple[int, str, float]], dice: random.Random) -> None:
    server = Server()

    def candidate(number: int) -> Candidate:
        skew = timedelta(seconds=dice.uniform(-1e6, 1e6))
        return Candidate(server, f"c{number}-{dice.random()}", skew=skew, jitter=dice.random())

    candidates = [candidate(number) for number in range(3)]
    retired: list[Candidate] = []

    async def watch() -> None:
        while True:
            assert sum(each.leading for each in (*candidates, *retired)) <= 1
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    for number, what, then_s in troubles:
        one = candidates[number]
        wire = one.wire
        match what:
            case "down":
                wire.down = True
            case "up":
                wire.down, wire.there_s, wire.back_s = False, 0.001, 0.001
            case "slow there":
                wire.there_s = dice.uniform(0, 6)
            case "slow back":
                wire.back_s = dice.uniform(0, 6)
            case "very slow":
                wire.there_s = dice.uniform(6, 30)
            case "stop":
                await one.stop()
                retired.append(one)
            case _:
                if one.task.done():
                    candidates[number] = candidate(number)
        await asyncio.sleep(then_s)
    for number, one in enumerate(candidates):
        one.wire.down, one.wire.there_s, one.wire.back_s = False, 0.001, 0.001
        if one.task.done():
            candidates[number] = candidate(number)
    # What is still on its way may renew a lease whose holder has given up.
    await asyncio.sleep(30 + 15 + 3)
    assert not watching.done() or watching.exception() is None
    assert sum(each.leading for each in candidates) == 1
    watching.cancel()
    for each in candidates:
        await each.stop()
    results = await asyncio.gather(watching, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError), results
