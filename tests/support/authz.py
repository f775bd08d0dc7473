# pyright: standard, reportAttributeAccessIssue=false
"""What tests of ext_authz share: policies as messages, CheckRequests, and answers that can be read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf.json_format import MessageToDict, ParseDict

from dragoman.grpc_worker import StatusCode
from dragoman.protos.dragoman.authz.v1.policy_pb2 import Policy
from ext_authz.check import Checker
from ext_authz.key_lookup import KeyLookup
from ext_authz.policies import Policies
from ext_authz.stats import Stats
from ext_authz.stores.records import KeyStore
from ext_authz.verdicts import VerdictCache
from tests.support.tokens import SigningKey, jwks

POLICY = "shop/orders/h1"


def message(policy_id: str = POLICY, **fields: Any) -> Policy:
    """A policy from its fields, in proto JSON names or snake case."""
    return ParseDict({"id": policy_id, **fields}, Policy())


def jwt_provider(*keys: SigningKey, **fields: Any) -> dict[str, Any]:
    """A provider that trusts these keys for `https://issuer.example`."""
    return {
        "name": "issuer",
        "issuer": "https://issuer.example",
        "inline_jwks": json.dumps(jwks(*keys)),
        **fields,
    }


def check_request(headers: Mapping[str, str] | None = None, *, path: str = "/", policy: str | None = POLICY) -> bytes:
    """The bytes that Envoy sends for a request."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = "GET", path, "example.com"
    for name, value in {"x-request-id": "req-1", **(headers or {})}.items():
        http.headers[name] = value
    if policy is not None:
        request.attributes.context_extensions["policy"] = policy
    return request.SerializeToString()


@dataclass(slots=True)
class Answer:
    """What Envoy is told, in plain data."""

    raw: CheckResponse

    @staticmethod
    def read(body: bytes) -> Answer:
        return Answer(CheckResponse.FromString(body))

    @property
    def status(self) -> int:
        return int(self.raw.denied_response.status.code) if self.raw.HasField("denied_response") else 200

    @property
    def headers(self) -> dict[str, str]:
        side = self.raw.denied_response if self.raw.HasField("denied_response") else self.raw.ok_response
        return {option.header.key: option.header.value for option in side.headers}

    @property
    def removed(self) -> set[str]:
        return set(self.raw.ok_response.headers_to_remove)

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw.denied_response.body)

    @property
    def metadata(self) -> dict[str, Any]:
        return MessageToDict(self.raw.dynamic_metadata)


class RecordedCall:
    """A `Call` that keeps its answer."""

    deadline: float | None = None
    cancelled = False

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.failures: list[tuple[StatusCode, str]] = []
        self.ended = asyncio.Event()

    def done(self, body: bytes) -> None:
        self.bodies.append(body)
        self.ended.set()

    def fail(self, code: StatusCode, message: str) -> None:
        self.failures.append((code, message))
        self.ended.set()


@dataclass(slots=True)
class Service:
    """A checker with its parts, and a clock that the test sets."""

    policies: Policies
    verdicts: VerdictCache
    stats: Stats
    checker: Checker
    lookup: KeyLookup | None = None
    now: Callable[[], float] = time.time
    offset_s: list[float] = field(default_factory=lambda: [0.0])

    def put(self, *messages: Policy) -> None:
        """Puts policies in force; raises where one is not sound."""
        change = self.policies.prepared({item.id: item.SerializeToString() for item in messages})
        assert not change.invalid, change.invalid
        self.policies.use(change, ())

    async def check(self, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """Asks, waits for the answer, and reads it."""
        return await self.check_bytes(check_request(headers, **options))

    async def check_bytes(self, body: bytes) -> Answer:
        call = RecordedCall()
        self.checker(body, call)
        await asyncio.wait_for(call.ended.wait(), 30)
        assert not call.failures, call.failures
        assert len(call.bodies) == 1, "a call is answered once"
        return Answer.read(call.bodies[0])


def service(*messages: Policy, store: KeyStore | None = None) -> Service:
    """A service that holds these policies."""
    offset_s = [0.0]

    def now() -> float:
        return time.time() + offset_s[0]

    policies, verdicts, stats = Policies(), VerdictCache(), Stats()
    lookup = None if store is None else KeyLookup(store, on_change=verdicts.forget_keys)
    checker = Checker(policies.by_id, verdicts=verdicts, stats=stats, keys=lookup, clock=now)
    made = Service(policies, verdicts, stats, checker, lookup, now, offset_s)
    made.put(*messages)
    return made


@asynccontextmanager
async def following(made: Service) -> AsyncIterator[Service]:
    """The service while it follows its store's changes."""
    assert made.lookup is not None
    await made.lookup.catch_up()
    task = asyncio.create_task(made.lookup.follow())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.lookup.close()
