"""Kubernetes service-account tokens, verified without asking: only the API server's public keys are fetched."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import jwt

from controlplane.xds.authentication import Metadata, bearer_token
from controlplane.xds.identity import Principal, Refusal
from controlplane.xds.token_keys import TokenKeys, read_keys

_log = logging.getLogger(__name__)

AUDIENCE: Final = "dragoman"
KEYS_PATH: Final = "/openid/v1/jwks"
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"

MAX_TOKEN: Final = 8192
_MAX_CACHED: Final = 10_000
_LEEWAY_S: Final = 30.0
_FETCH_EVERY_S: Final = 600.0
_FETCH_WITHIN_S: Final = 5.0
_UNKNOWN_KEY_EVERY_S: Final = 10.0
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 60.0

_SUBJECT: Final = re.compile(r"system:serviceaccount:([a-z0-9][-a-z0-9]{0,62}):([a-z0-9][-a-z0-9.]{0,252})")
_MALFORMED: Final = Refusal("the token cannot be read")

Fetch = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Returns the JSON document at a path of the API server; raises whatever."""


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    expires_at: float


class ServiceAccountTokens:
    """An Authenticator; `run` it as a task, which keeps the keys fresh, and keeps those it has through an outage.

    `services` tells the service accounts (namespace, name) of ext_authz and the rate limit service from those of
    Gateways: their owner, `authz` or `ratelimit`. `replicas` is that of the control plane itself. `issuer` is asked of
    the API server unless given. `keys` are those of a process before this one, good until there are others, which
    `on_keys` hears.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        services: Mapping[tuple[str, str], str] | None = None,
        replicas: tuple[str, str] | None = None,
        audience: str = AUDIENCE,
        issuer: str | None = None,
        keys: TokenKeys | None = None,
        on_keys: Callable[[TokenKeys], None] = lambda keys: None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._services = dict(services or {})
        self._replicas = replicas
        self._audience = audience
        self._given_issuer = issuer
        self._now = now
        self._clock = clock
        self._keys = keys
        self._on_keys = on_keys
        self._fetching: asyncio.Task[bool] | None = None
        self._tried_at = -math.inf
        self._fault: str | None = "no keys have come yet"
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether there are keys to verify with."""
        return self._keys is not None

    @property
    def fault(self) -> str | None:
        """Why the last fetch of the keys failed; None if it did not."""
        return self._fault

    async def run(self) -> None:
        """Fetches the keys now and every ten minutes, sooner after a failure, until cancelled."""
        failures = 0
        try:
            while True:
                failures = 0 if await self._refresh() else failures + 1
                await asyncio.sleep(_pause_s(failures))
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def authenticate(self, metadata: Metadata) -> Principal | Refusal:
        """Returns whose token `authorization` holds, or why it is good for nothing here."""
        token = bearer_token(metadata)
        if isinstance(token, Refusal):
            return token
        if len(token) > MAX_TOKEN:
            return Refusal(f"the token is longer than {MAX_TOKEN} characters")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None and self._now() < known.expires_at:
            self._verified.move_to_end(digest)
            return known.principal
        try:
            found = await self._verify(token)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return _MALFORMED
        except Exception:
            # The token is the client's: whatever it makes a library do, it is good for nothing.
            _log.exception("a token made its verification fail in an unforeseen way")
            return _MALFORMED
        if isinstance(found, Refusal):
            return found
        self._remember(digest, found)
        return found.principal

    def _remember(self, digest: bytes, found: _Verified) -> None:
        self._verified[digest] = found
        self._verified.move_to_end(digest)
        if len(self._verified) > _MAX_CACHED:
            self._verified.popitem(last=False)

    async def _verify(self, token: str) -> _Verified | Refusal:
        if not token.isascii() or token.count(".") != 2:
            return _MALFORMED
        header = jwt.get_unverified_header(token)
        kid, algorithm = header.get("kid"), header.get("alg")
        # Extensions that must be understood (RFC 7515 §4.1.11): none is.
        if not isinstance(kid, str) or not isinstance(algorithm, str) or "crit" in header:
            return _MALFORMED
        if self._keys is None or kid not in self._keys.by_id:
            await self._ask_for_unknown()
        keys = self._keys
        if keys is None:
            return Refusal("tokens cannot be verified yet: the API server's keys have not come")
        key = keys.by_id.get(kid)
        if key is None:
            return Refusal("the token is signed with an unknown key")
        if algorithm not in key.algorithms:
            return Refusal("the token's algorithm is not that of its key")
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=keys.issuer,
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub"],
                    # By our own clock, in `_read`.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidSignatureError:
            return Refusal("the token's signature is not valid")
        except jwt.InvalidAudienceError:
            return Refusal(f"the token is not for the audience {self._audience}")
        except jwt.InvalidIssuerError:
            return Refusal("the token is not of this cluster's issuer")
        except jwt.MissingRequiredClaimError as error:
            return Refusal(str(error))
        return self._read(cast("dict[str, object]", claims))

    def _read(self, claims: Mapping[str, object]) -> _Verified | Refusal:
        expires_at, now = claims["exp"], self._now()
        begins = [claims.get(name, 0) for name in ("nbf", "iat")]
        if not _is_time(expires_at) or not all(map(_is_time, begins)):
            return _MALFORMED
        assert isinstance(expires_at, (int, float))
        if now >= expires_at + _LEEWAY_S:
            return Refusal("the token has expired")
        if any(isinstance(begin, (int, float)) and begin > now + _LEEWAY_S for begin in begins):
            return Refusal("the token is not valid yet")
        account = _service_account(claims)
        if account is None:
            return Refusal("the token is not a service account's")
        return _Verified(self._principal(account), expires_at + _LEEWAY_S)

    def _principal(self, account: tuple[str, str]) -> Principal:
        if account == self._replicas:
            return Principal("replica", service_account=account)
        service = self._services.get(account)
        return Principal("service", service) if service else Principal("gateway", service_account=account)

    # Keys

    async def _ask_for_unknown(self) -> None:
        """Fetches the keys once more, at most every few seconds: it is clients who cause this."""
        if self._fetching is None and self._clock() - self._tried_at < _UNKNOWN_KEY_EVERY_S:
            return
        await self._refresh()

    async def _refresh(self) -> bool:
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch_keys())
            self._fetching.add_done_callback(self._fetched)
        # Not cancelled with one who gives up waiting: others wait for it too.
        return await asyncio.shield(self._fetching)

    def _fetched(self, task: asyncio.Task[bool]) -> None:
        self._fetching = None

    async def _fetch_keys(self) -> bool:
        try:
            async with asyncio.timeout(_FETCH_WITHIN_S):
                issuer = self._given_issuer or (await self._fetch(DISCOVERY_PATH)).get("issuer")
                keys = read_keys(await self._fetch(KEYS_PATH), issuer=issuer)
        except Exception as error:
            fault = str(error) or type(error).__name__
            if fault != self._fault:
                _log.warning("the API server's keys for tokens cannot be had: %s", fault)
            self._fault = fault
            return False
        if self._keys is None or keys.text != self._keys.text or keys.issuer != self._keys.issuer:
            # What a key has verified that is gone by now is not to be taken for good any more.
            self._verified.clear()
            self._keys = keys
            self._on_keys(keys)
            _log.info("took %d keys for service-account tokens of %s", len(keys.by_id), keys.issuer)
        self._fault = None
        return True


def _pause_s(failures: int) -> float:
    longest_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(failures - 1, 10)) if failures else _FETCH_EVERY_S
    return longest_s * random.uniform(0.8, 1.0)  # noqa: S311


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value < 2**53


def _service_account(claims: Mapping[str, object]) -> tuple[str, str] | None:
    """Returns namespace and name, where the subject and Kubernetes' own claim agree on them."""
    subject, own = claims.get("sub"), claims.get("kubernetes.io")
    found = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if found is None or not isinstance(own, dict):
        return None
    details = cast("dict[str, object]", own)
    account = details.get("serviceaccount")
    name = cast("dict[str, object]", account).get("name") if isinstance(account, dict) else None
    return (found[1], found[2]) if (details.get("namespace"), name) == (found[1], found[2]) else None
