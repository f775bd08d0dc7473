# pyright: standard, reportAttributeAccessIssue=false
"""Answers envoy.service.auth.v3.Authorization/Check: from the cache in the same tick, else by deciding."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from google.protobuf.message import DecodeError

from dragoman.grpc_worker import Call, StatusCode
from ext_authz import responses
from ext_authz.credentials import Found, fingerprint, look
from ext_authz.decide import MISSING, Decision, NeedKeys, decide
from ext_authz.identity import Identity, Reason, Refusal
from ext_authz.key_lookup import KeyLookup
from ext_authz.policy import Policy
from ext_authz.stats import Stats
from ext_authz.stores.records import KeyRecord, StoreUnavailableError
from ext_authz.verdicts import Pass, VerdictCache

METHOD = "/envoy.service.auth.v3.Authorization/Check"
EXTENSION = "policy"
"""The context extension by which a route names its policy."""

_UNKNOWN_POLICY = Refusal(Reason.POLICY_UNKNOWN, "The service cannot decide on this request now")
_NO_STORE = Refusal(Reason.STORE_UNAVAILABLE, "The API key cannot be checked now", about="api_key")
_INTERNAL = Refusal(Reason.INTERNAL, "The service cannot decide on this request now")
# Refusals that the next attempt may not meet, or that must not outlive an outage, are not remembered.
_FLEETING = frozenset((Reason.NOT_YET, Reason.STORE_UNAVAILABLE, Reason.INTERNAL))
_NEVER = float("inf")
log = logging.getLogger("ext_authz")

MAX_WAITING = 1024
"""Requests that wait for the store or for an issuer's keys, at the most."""
Refetch = Callable[[Policy], Awaitable[bool] | None]
"""Starts to fetch a policy's keys anew, for a token that names an unknown one; None when that is not due."""


class Checker:
    """The handler of Check. An unknown policy id is answered 503: it fails closed, and the client may try again."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        verdicts: VerdictCache,
        stats: Stats,
        keys: KeyLookup | None = None,
        refetch: Refetch = lambda policy: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policies = policies
        self._verdicts = verdicts
        self._stats = stats
        self._keys = keys
        self._refetch = refetch
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, body: bytes, call: Call) -> None:
        """Answers one CheckRequest; a verdict that is cached costs no task."""
        started = time.perf_counter()
        try:
            attributes = CheckRequest.FromString(body).attributes
        except DecodeError:
            call.fail(StatusCode.INVALID_ARGUMENT, "not a CheckRequest")
            return
        policy = self._policies.get(attributes.context_extensions.get(EXTENSION, ""))
        http = attributes.request.http
        if policy is None:
            self._refuse(_UNKNOWN_POLICY, None, http.headers, call, started)
            return
        found = look(policy.places, http)
        key = fingerprint(policy, found)
        now = self._clock()
        verdict = self._verdicts.get(key, now)
        if verdict is not None:
            call.done(verdict.body if not policy.remove_cookies else self._body(verdict, policy, http.headers))
            self._stats.passed(policy.label, True, time.perf_counter() - started)
            return
        headers = http.headers
        refusal = self._verdicts.refusal(key, now)
        if refusal is not None:
            self._refuse(refusal, policy, headers, call, started)
            return
        self._decide(policy, found, key, headers, call, started)

    async def drain(self) -> None:
        """Waits for the decisions that are in the making."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _decide(
        self, policy: Policy, found: Found, key: bytes, headers: Mapping[str, str], call: Call, started: float
    ) -> None:
        try:
            decision = decide(policy, found, self._clock())
        except Exception:
            log.exception("deciding failed", extra={"request_id": headers.get("x-request-id", "")})
            decision = _INTERNAL
        waiting = isinstance(decision, NeedKeys) or self._refetchable(policy, decision)
        if not waiting:
            self._conclude(decision, policy, key, headers, call, started)
            return
        if len(self._tasks) >= MAX_WAITING:
            overfull = _NO_STORE if isinstance(decision, NeedKeys) else decision
            self._conclude(overfull, policy, key, headers, call, started, keep=False)
            return
        task = asyncio.ensure_future(self._decide_later(decision, policy, found, key, headers, call, started))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide_later(
        self,
        decision: Decision | NeedKeys,
        policy: Policy,
        found: Found,
        key: bytes,
        headers: Mapping[str, str],
        call: Call,
        started: float,
    ) -> None:
        keep = True
        try:
            if not isinstance(decision, NeedKeys):
                fetching = self._refetch(policy)
                if fetching is not None and await fetching:
                    policy = self._policies.get(policy.id, policy)
                    key = fingerprint(policy, found)
                    decision = decide(policy, found, self._clock())
            if isinstance(decision, NeedKeys):
                epoch = self._keys.epoch if self._keys is not None else 0
                records = await self._records(decision.key_ids)
                keep = self._keys is not None and epoch == self._keys.epoch
                decision = _NO_STORE if records is None else decide(policy, found, self._clock(), records)
            if isinstance(decision, NeedKeys):
                decision = _INTERNAL
        except Exception:
            log.exception("deciding failed", extra={"request_id": headers.get("x-request-id", "")})
            decision = _INTERNAL
        self._conclude(decision, policy, key, headers, call, started, keep=keep)

    async def _records(self, key_ids: tuple[str, ...]) -> Mapping[str, KeyRecord | None] | None:
        if self._keys is None:
            return None
        try:
            return {key_id: await self._keys.find(key_id) for key_id in key_ids}
        except StoreUnavailableError:
            return None

    def _refetchable(self, policy: Policy, decision: Decision | NeedKeys) -> bool:
        unknown = isinstance(decision, Refusal) and decision.reason is Reason.UNKNOWN_SIGNING_KEY
        return unknown and any(provider.jwks_uri for provider in policy.providers)

    def _conclude(
        self,
        decision: Decision | NeedKeys,
        policy: Policy,
        key: bytes,
        headers: Mapping[str, str],
        call: Call,
        started: float,
        *,
        keep: bool = True,
    ) -> None:
        if isinstance(decision, Refusal):
            if keep and decision is not MISSING and decision.reason not in _FLEETING:
                self._verdicts.put_refusal(key, decision, self._clock())
            self._refuse(decision, policy, headers, call, started)
            return
        assert not isinstance(decision, NeedKeys)
        verdict = _verdict(policy, decision)
        if keep:
            self._verdicts.put(key, verdict)
        call.done(self._body(verdict, policy, headers))
        self._stats.passed(policy.label, False, time.perf_counter() - started)

    def _body(self, verdict: Pass, policy: Policy, headers: Mapping[str, str]) -> bytes:
        if not policy.remove_cookies:
            return verdict.body
        cookie = headers.get("cookie")
        return (
            verdict.body
            if cookie is None
            else responses.with_cookies_removed(verdict.body, cookie, policy.remove_cookies)
        )

    def _refuse(
        self, refusal: Refusal, policy: Policy | None, headers: Mapping[str, str], call: Call, started: float
    ) -> None:
        call.done(responses.refuse(refusal, policy, headers.get("x-request-id", "")))
        label = policy.label if policy is not None else ""
        self._stats.count(label, refusal.reason.value, time.perf_counter() - started)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "refused",
                extra={
                    "request_id": headers.get("x-request-id", ""),
                    "policy": policy.id if policy is not None else "",
                    "reason": refusal.reason.value,
                },
            )


def _verdict(policy: Policy, identities: tuple[Identity, ...]) -> Pass:
    return Pass(
        responses.allow(policy, identities),
        min((identity.expires_at for identity in identities if identity.expires_at is not None), default=_NEVER),
        tuple(identity.key_id for identity in identities if identity.key_id),
    )
