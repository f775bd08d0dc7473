# pyright: standard, reportAttributeAccessIssue=false
"""What tests of the rate limiter share: requests, a call that keeps its answer, and a model of what must be decided."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from dragoman.grpc_worker import StatusCode
from ratelimit_service.answers import AnswerOptions, Answers
from ratelimit_service.config_file import parse
from ratelimit_service.handler import RateLimiter
from ratelimit_service.model import Config, OnStoreError, Unit
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.local import Local

Entries = Sequence[tuple[str, str]]


def request(domain: str, *descriptors: Entries, hits: int | None = None, own_hits: Sequence[int | None] = ()) -> bytes:
    """Encodes a RateLimitRequest; `hits` is its hits_addend, `own_hits` those of the descriptors: below zero, so many
    are given back.
    """
    message = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits or 0)
    for index, entries in enumerate(descriptors):
        descriptor = message.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
        own = own_hits[index] if index < len(own_hits) else None
        if own is not None:
            descriptor.hits_addend.value = abs(own)
        if own is not None and own < 0:
            # is_negative_hits, which is newer than our types.
            descriptor.MergeFromString(b"\x20\x01")
    return message.SerializeToString()


def request_that_brings(
    domain: str, entries: Entries, *, per_unit: int, unit: Unit, times: int | None = None, added: bytes = b""
) -> bytes:
    """Encodes a request with a limit of its own, of so many units; `added` are further fields of that limit."""
    made = ratelimit_pb2.RateLimitDescriptor.RateLimitOverride(requests_per_unit=per_unit, unit=unit.wire)
    if times is not None:
        # Newer than our types.
        wrapped = UInt32Value(value=times).SerializeToString()
        added += b"\x1a" + bytes([len(wrapped)]) + wrapped
    message = rls_pb2.RateLimitRequest.FromString(request(domain, entries))
    message.descriptors[0].limit.MergeFromString(made.SerializeToString() + added)
    return message.SerializeToString()


class RecordedCall:
    """A call that keeps what it was answered."""

    deadline: float | None = None
    cancelled = False

    def __init__(self) -> None:
        self.answered: asyncio.Future[bytes] | None = None
        self.body: bytes | None = None
        self.failure: tuple[StatusCode, str] | None = None

    def done(self, body: bytes) -> None:
        assert self.body is None, "answered twice"
        self.body = body
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(body)

    def fail(self, code: StatusCode, message: str) -> None:
        self.failure = code, message
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(AssertionError(f"{code.name}: {message}"))

    @property
    def response(self) -> Any:
        """The RateLimitResponse."""
        assert self.body is not None, self.failure or "not answered yet"
        return rls_pb2.RateLimitResponse.FromString(self.body)


@dataclass
class Clock:
    """A clock that tests set."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def loaded(yaml: str) -> Config:
    """Parses a configuration that has no faults."""
    domains, faults = parse(yaml.encode(), source="test.yaml")
    assert not faults, [str(fault) for fault in faults]
    return Config({domain.name: domain for domain, _ in domains})


class Limiter:
    """The whole request path over a store, without a network before it."""

    def __init__(
        self,
        yaml: str,
        store: Store,
        *,
        clock: Clock,
        answers: AnswerOptions = AnswerOptions(),  # noqa: B008  (frozen)
        unknown_domain: OnStoreError = OnStoreError.ALLOW,
        local: Local | None = None,
        leases: Store | None = None,
        looks_first: bool = False,
    ) -> None:
        self.stats = StatsRegistry()
        self.clock = clock
        self.answers = Answers(answers)
        self.handler = RateLimiter(
            store, self.stats, clock=clock, answers=self.answers, leases=leases, looks_first=looks_first
        )
        self._unknown_domain = unknown_domain
        self._local = local
        self.use(yaml)

    def use(self, yaml: str) -> None:
        """Puts another configuration in force."""
        config = loaded(yaml)
        self.stats.configure(config.rules())
        unknown = self._unknown_domain
        planner = Planner(config, self.stats, answers=self.answers, unknown_domain=unknown, local=self._local)
        self.handler.use(planner)

    def ask(self, body: bytes) -> RecordedCall:
        """Sends a request; over the memory store it is answered when this returns."""
        call = RecordedCall()
        self.handler(body, call)
        return call

    async def response(self, body: bytes) -> Any:
        """Sends a request and waits for its RateLimitResponse."""
        call = RecordedCall()
        call.answered = asyncio.get_running_loop().create_future()
        self.handler(body, call)
        await asyncio.wait_for(call.answered, 30)
        return call.response


def response_of(body: bytes) -> Any:
    """Decodes a RateLimitResponse."""
    return rls_pb2.RateLimitResponse.FromString(body)
