"""Verifies a JSON Web Token against the providers of a policy (RFC 7519 §7.2, RFC 8725)."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jwt

from ext_authz import claims as claim
from ext_authz.identity import Identity, Outcome, Reason, Refusal
from ext_authz.jwt_keys import ALGORITHMS, SigningKey
from ext_authz.policy import JwtProvider

MAX_TOKEN_BYTES = 8192
_jws = jwt.PyJWS(algorithms=list(ALGORITHMS))
log = logging.getLogger("ext_authz.jwt")

_MALFORMED = Refusal(Reason.MALFORMED_TOKEN, "The token is malformed")
_UNKNOWN_KEY = Refusal(Reason.UNKNOWN_SIGNING_KEY, "The token is signed with an unknown key")


def verify(token: str, providers: Sequence[JwtProvider], now: float) -> Outcome:
    """Returns whose token it is, or why no provider accepts it. `now` is in seconds since the epoch. Never raises."""
    try:
        return _verify(token, providers, now)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return _MALFORMED
    except Exception:
        # The token is the client's: whatever it makes a library do, the answer is that the token is no good.
        log.exception("a token made its verification fail in an unforeseen way")
        return _MALFORMED


def _verify(token: str, providers: Sequence[JwtProvider], now: float) -> Outcome:
    if len(token) > MAX_TOKEN_BYTES:
        return Refusal(Reason.TOO_LARGE, f"The token is longer than {MAX_TOKEN_BYTES} bytes")
    header, claims = _unverified(token)
    if header is None or claims is None:
        return _MALFORMED
    issuer = claims.get("iss")
    trusted = [provider for provider in providers if provider.issuer in ("", issuer)]
    if not trusted:
        return Refusal(Reason.ISSUER, "The token's issuer is not accepted")
    first: Refusal | None = None
    for provider in trusted:
        outcome = _by_provider(token, header, claims, provider, now)
        if isinstance(outcome, Identity):
            return outcome
        first = first or outcome
    return first or _MALFORMED


def _unverified(token: str) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    if not token.isascii() or token.count(".") != 2:
        return None, None
    decoded = _jws.decode_complete(token, options={"verify_signature": False})
    header, claims = decoded["header"], json.loads(decoded["payload"])
    if b"\\u" in decoded["payload"]:
        # Half a surrogate pair is no text: nothing that is made of it could be sent on (raises UnicodeEncodeError).
        json.dumps(claims, ensure_ascii=False).encode()
    # Extensions that must be understood (RFC 7515 §4.1.11): none is.
    if "crit" in header or header.get("b64", True) is not True or not isinstance(claims, dict):
        return None, None
    return header, cast("dict[str, Any]", claims)


def _by_provider(
    token: str, header: Mapping[str, Any], claims: Mapping[str, Any], provider: JwtProvider, now: float
) -> Outcome:
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in provider.algorithms:
        return Refusal(Reason.ALGORITHM, "The token's algorithm is not accepted")
    if kid is not None and not isinstance(kid, str):
        return _MALFORMED
    candidates = provider.keys.candidates(kid, algorithm)
    if not candidates:
        return _UNKNOWN_KEY
    # Cheap checks come first: a token that has expired costs no signature.
    refusal = _refuse_claims(claims, provider, now)
    if refusal is not None:
        return refusal
    if not any(_signed_by(token, key, algorithm) for key in candidates):
        return Refusal(Reason.SIGNATURE, "The token's signature is not valid")
    return _identify(claims, provider)


def _signed_by(token: str, key: SigningKey, algorithm: str) -> bool:
    try:
        _jws.decode_complete(token, key.key, algorithms=[algorithm])
    except jwt.InvalidSignatureError:
        return False
    return True


def _refuse_claims(claims: Mapping[str, Any], provider: JwtProvider, now: float) -> Refusal | None:
    """Checks the registered claims (RFC 7519 §4.1)."""
    skew = provider.clock_skew_s
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_time(claims[name]):
            return _MALFORMED
    if "exp" not in claims and provider.require_expiration:
        return Refusal(Reason.EXPIRED, "The token has no expiration time")
    if "exp" in claims and now >= claims["exp"] + skew:
        return Refusal(Reason.EXPIRED, "The token has expired")
    if max(claims.get("nbf", 0), claims.get("iat", 0)) > now + skew:
        return Refusal(Reason.NOT_YET, "The token is not valid yet")
    if provider.audiences and not provider.audiences & _audiences(claims.get("aud")):
        return Refusal(Reason.AUDIENCE, "The token is for another audience")
    return None


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value < 2**53


def _audiences(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset((value,))
    return claim.words(value) if isinstance(value, list) else frozenset()


def _identify(claims: Mapping[str, Any], provider: JwtProvider) -> Outcome:
    scopes = claim.scopes(claims, provider.scope_claim)
    if not scopes.issuperset(provider.required_scopes):
        return Refusal(Reason.SCOPE, "The token lacks a required scope", provider.required_scopes)
    if not claim.words(claim.find(claims, provider.roles_claim)).issuperset(provider.required_roles):
        return Refusal(Reason.ROLE, "The token lacks a required role")
    subject, expires = claims.get("sub"), claims.get("exp")
    return Identity(
        kind="jwt",
        client=subject if isinstance(subject, str) else "",
        expires_at=None if expires is None else expires + provider.clock_skew_s,
        scopes=scopes,
        provider=provider.name,
        claims=claims,
        headers=_named(claims, provider.claim_headers),
        metadata=_named(claims, provider.claim_metadata),
    )


def _named(claims: Mapping[str, Any], wanted: Sequence[tuple[str, str]]) -> dict[str, str]:
    values = ((name, claim.header_value(claim.find(claims, path))) for path, name in wanted)
    return {name: value for name, value in values if value is not None}
