# pyright: standard, reportAttributeAccessIssue=false
"""What the services' xDS client does with servers that contradict themselves, hammer, end, or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar

import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.xds.identity import AUTHZ_OWNER
from controlplane.xds.resources import AUTHZ_POLICY, CLUSTER
from dragoman.xds_client import Backoff, XdsClient
from dragoman.xds_protocol import XdsProtocol
from tests.support.waiting import until

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
FAST = Backoff(first_s=0.01, longest_s=0.05)
END = grpc.aio.EOF


class Noting(Backoff):
    """Notes after how many failures in a row there is a pause."""

    noted: ClassVar[list[int]]

    def delay_s(self, failures: int) -> float:
        self.noted.append(failures)
        return super().delay_s(failures)


@pytest.fixture
def noting() -> type[Noting]:
    """One whose notes are those of this test."""
    return type("Noting", (Noting,), {"noted": []})


class Held:
    """What a service holds: name → body. One with `bad` in it is refused."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.calls = 0

    def update(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        self.calls += 1
        if any(b"bad" in body for body in changed.values()):
            raise ValueError("this one is no good")
        self.bodies |= changed
        for name in removed:
            del self.bodies[name]


class Scripted:
    """Serves bytes as a test says: `streams` are the requests of each stream, as they came, and when it began."""

    def __init__(self, stream: Callable[[Scripted, Any], Awaitable[None]] | None = None) -> None:
        self.address = ""
        self.began: list[float] = []
        self.requests: list[Any] = []
        self.say: asyncio.Queue[Any] = asyncio.Queue()
        self._serve = stream or _as_told

    async def stream(self, _: object, context: grpc.aio.ServicerContext) -> None:
        self.began.append(time.monotonic())
        await self._serve(self, context)

    @property
    def answers(self) -> list[tuple[str, str]]:
        """The nonces of what has been answered, and why it was rejected."""
        return [(each.response_nonce, each.error_detail.message) for each in self.requests if each.response_nonce]


async def _as_told(server: Scripted, context: Any) -> None:
    async def read() -> None:
        while (raw := await context.read()) is not grpc.aio.EOF:
            server.requests.append(discovery_pb2.DeltaDiscoveryRequest.FromString(raw))

    reading = asyncio.ensure_future(read())
    try:
        while (message := await server.say.get()) is not END:
            await context.write(message if isinstance(message, bytes) else message.SerializeToString())
    finally:
        reading.cancel()


@contextlib.asynccontextmanager
async def client_of(server: Scripted, held: Held, **options: Any) -> AsyncIterator[XdsClient]:
    listening = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(server.stream)
    protocol: XdsProtocol = options.get("protocol", "delta")
    method = "StreamAggregatedResources" if protocol == "sotw" else "DeltaAggregatedResources"
    listening.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {method: handler}),))
    address = f"127.0.0.1:{listening.add_insecure_port('127.0.0.1:0')}"
    await listening.start()
    options = {"backoff": FAST, "name_of": lambda body: body.decode().partition("=")[0], **options}
    client = XdsClient(address, "worker-0", AUTHZ_OWNER, AUTHZ_POLICY, held.update, **options)
    running = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await listening.stop(0)


def delta(nonce: str, *resources: tuple[str, str, bytes], removed: tuple[str, ...] = (), **fields: Any) -> Any:
    response = discovery_pb2.DeltaDiscoveryResponse(
        **{"type_url": AUTHZ_POLICY, "nonce": nonce, "removed_resources": removed, **fields}
    )
    for name, version, body in resources:
        entry = response.resources.add(name=name, version=version)
        entry.resource.type_url, entry.resource.value = AUTHZ_POLICY, body
    return response


def state(version: str, *bodies: bytes, type_url: str = AUTHZ_POLICY) -> Any:
    response = discovery_pb2.DiscoveryResponse(type_url=type_url, version_info=version, nonce=version)
    for body in bodies:
        response.resources.add(type_url=type_url, value=body)
    return response


async def answered(server: Scripted, nonce: str) -> str:
    """Waits for the answer to a response, and returns why it was rejected."""
    await until(lambda: nonce in dict(server.answers), what=f"the answer to {nonce}")
    return dict(server.answers)[nonce]


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_resource_that_is_both_there_and_removed_stays_as_it_is_and_is_rejected(version: str) -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held) as client:
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1"), ("gone", "1", b"gone=1")))
        assert await answered(server, "n1") == ""
        odd = delta("n2", ("a", version, b"a=" + version.encode()), ("b", "1", b"b=1"), removed=("a", "gone"))
        server.say.put_nowait(odd)
        assert "'a' is named twice" in await answered(server, "n2")
        assert held.bodies == {"a": b"a=1", "b": b"b=1"}
        server.say.put_nowait(delta("n3", ("a", "3", b"a=3")))
        assert await answered(server, "n3") == ""
        assert held.bodies == {"a": b"a=3", "b": b"b=1"}
        assert client.status.rejected is None


async def test_two_resources_of_a_name_are_rejected_and_the_others_are_in_force() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1"), ("a", "2", b"a=2"), ("b", "1", b"b=1")))
        assert "'a' is named twice" in await answered(server, "n1")
        assert held.bodies == {"b": b"b=1"}


async def test_what_is_sent_again_at_the_version_that_is_held_changes_nothing_and_is_acknowledged() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1")))
        await answered(server, "n1")
        server.say.put_nowait(delta("n2", ("a", "1", b"a=1")))
        assert await answered(server, "n2") == ""
        assert (held.bodies, held.calls) == ({"a": b"a=1"}, 1)


async def test_a_server_that_gives_no_versions_is_heard_all_the_same() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        for number in (1, 2):
            server.say.put_nowait(delta(f"n{number}", ("a", "", b"a=%d" % number)))
            assert await answered(server, f"n{number}") == ""
        assert held.bodies == {"a": b"a=2"}


async def test_a_resource_without_its_body_says_that_it_is_still_there_at_the_version_that_is_held() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1")))
        await answered(server, "n1")
        for version, rejected in (("1", ""), ("2", "'a' has no resource")):
            response = delta(f"n1-{version}")
            response.resources.add(name="a", version=version)
            server.say.put_nowait(response)
            assert await answered(server, f"n1-{version}") == rejected
        assert held.bodies == {"a": b"a=1"}


async def test_a_resource_of_another_type_is_rejected_and_the_others_are_in_force() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        response = delta("n1", ("a", "1", b"a=1"), ("b", "1", b"b=1"))
        response.resources[0].resource.type_url = CLUSTER
        server.say.put_nowait(response)
        assert f"'a' is not a {AUTHZ_POLICY}" in await answered(server, "n1")
        assert held.bodies == {"b": b"b=1"}


async def test_a_response_of_a_type_that_was_not_asked_for_takes_nothing_away_by_delta() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1")))
        server.say.put_nowait(delta("n2", removed=("a",), type_url=CLUSTER))
        server.say.put_nowait(delta("n3"))
        await answered(server, "n3")
        assert held.bodies == {"a": b"a=1"}
        assert [nonce for nonce, _ in server.answers] == ["n1", "n3"]


async def test_a_response_of_a_type_that_was_not_asked_for_takes_nothing_away_by_state_of_the_world() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held, protocol="sotw") as client:
        server.say.put_nowait(state("1", b"a=1", b"b=1"))
        server.say.put_nowait(state("2", type_url=CLUSTER))
        server.say.put_nowait(state("3", b"a=3", b"b=1"))
        await until(lambda: held.bodies == {"a": b"a=3", "b": b"b=1"}, what="the next state")
        assert held.calls == 2
        assert client.status.connected


async def test_a_state_with_two_of_a_name_changes_nothing() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held, protocol="sotw") as client:
        server.say.put_nowait(state("1", b"a=1", b"b=1"))
        await until(lambda: held.bodies == {"a": b"a=1", "b": b"b=1"}, what="the first state")
        server.say.put_nowait(state("2", b"a=2", b"a=3", b"c=1"))
        await until(lambda: client.status.rejected, what="the rejection")
        assert held.bodies == {"a": b"a=1", "b": b"b=1"}


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
async def test_a_server_that_sends_what_was_rejected_again_and_again_is_answered_ever_more_slowly(
    protocol: XdsProtocol, noting: type[Noting]
) -> None:
    async def hammer(_: Scripted, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            bad = delta("n", ("a", "1", b"a=bad")) if protocol == "delta" else state("1", b"a=bad")
            await context.write(bad.SerializeToString())

    held = Held()
    async with client_of(Scripted(hammer), held, protocol=protocol, backoff=noting(first_s=0.01, longest_s=0.05)):
        await until(lambda: noting.noted[:5] == [1, 2, 3, 4, 5], what="some rejections")
    assert held.calls == 1


@pytest.mark.parametrize("word", [delta("n", ("a", "1", b"a=1")).SerializeToString(), b"\xff\xff\xff"])
async def test_a_server_that_ends_each_stream_after_a_word_is_turned_to_ever_more_slowly(
    word: bytes, caplog: pytest.LogCaptureFixture, noting: type[Noting]
) -> None:
    async def one_word(_: Scripted, context: Any) -> None:
        await context.read()
        await context.write(word)

    async with client_of(Scripted(one_word), Held(), backoff=noting(first_s=0.001, longest_s=5.0)):
        await until(lambda: noting.noted[:6] == [1, 2, 3, 4, 5, 6], what="some streams")
    assert len([each for each in caplog.records if "not connected" in each.message]) <= 2


async def test_a_server_that_served_for_long_is_turned_to_again_soon(noting: type[Noting]) -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held, backoff=noting(first_s=0.01, longest_s=0.05)):
        for number in range(1, 4):
            server.say.put_nowait(delta(f"n{number}", ("a", str(number), b"a=%d" % number)))
            await answered(server, f"n{number}")
            began = time.monotonic()
            await until(lambda: time.monotonic() - began > 0.06, what="a steady stream")  # noqa: B023
            server.say.put_nowait(END)
            await until(lambda: len(server.began) > number, what="the next stream")  # noqa: B023
    assert noting.noted[:3] == [1, 1, 1]


async def test_a_server_that_answers_never_is_left_for_another() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held, answer_within_s=0.1) as client:
        await until(lambda: len(server.began) >= 3, what="some streams")
        assert client.status.error == "no answer in 0.1 s"
        assert not client.status.ready


async def test_an_empty_first_response_is_an_answer() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held, answer_within_s=0.2) as client:
        server.say.put_nowait(delta("n1"))
        assert await answered(server, "n1") == ""
        assert client.status.ready
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 0.3, what="the time for a first answer to pass")
        assert (len(server.began), held.calls) == (1, 0)


async def test_a_response_that_is_too_long_is_not_read_and_leaves_what_is_held() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held, max_response_bytes=10_000) as client:
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1")))
        await answered(server, "n1")
        server.say.put_nowait(delta("n2", ("a", "2", b"a=" + bytes(20_000))))
        await until(lambda: client.status.error, what="the reason")
        assert "RESOURCE_EXHAUSTED" in (client.status.error or "")
        await until(lambda: len(server.began) == 2, what="the next stream")
        await until(lambda: len(server.requests) >= 3, what="its first request")
        assert dict(server.requests[-1].initial_resource_versions) == {"a": "1"}
        assert held.bodies == {"a": b"a=1"}


async def test_a_server_that_connects_anew_is_told_what_is_in_force_and_not_what_was_rejected() -> None:
    server, held = Scripted(), Held()
    async with client_of(server, held):
        server.say.put_nowait(delta("n1", ("a", "1", b"a=1"), ("b", "1", b"b=1")))
        await answered(server, "n1")
        server.say.put_nowait(delta("n2", ("a", "2", b"a=bad"), ("c", "1", b"c=1"), removed=("b",)))
        assert "this one is no good" in await answered(server, "n2")
        server.say.put_nowait(END)
        await until(lambda: len(server.began) == 2, what="the next stream")
        await until(lambda: len(server.requests) >= 4, what="its first request")
        assert dict(server.requests[-1].initial_resource_versions) == {"a": "1", "c": "1"}
