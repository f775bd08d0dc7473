"""The API server's public keys for service-account tokens, and which algorithms each of them is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from dragoman.jwks import JwksError, canonicalise

_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512"})
_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A public key and what it may verify: decided by the key, never by a token."""

    key: _PublicKey
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The keys by their id, the issuer whose they are, and the canonical document."""

    by_id: Mapping[str, TokenKey]
    issuer: str
    text: str


def read_keys(document: Mapping[str, Any], *, issuer: object) -> TokenKeys:
    """Returns the keys of a JWKS that tokens can be verified with; raises JwksError where there are none."""
    if not isinstance(issuer, str) or not issuer:
        raise JwksError("the API server names no issuer")
    text = canonicalise(json.dumps(document))
    by_id: dict[str, TokenKey] = {}
    for entry in json.loads(text)["keys"]:
        found = _key(entry)
        if found is not None:
            by_id[entry["kid"]] = found
    if not by_id:
        raise JwksError("no key in it that tokens can be verified with")
    return TokenKeys(by_id, issuer, text)


def _key(entry: Mapping[str, Any]) -> TokenKey | None:
    if not isinstance(entry.get("kid"), str):
        return None
    try:
        key: object = jwt.PyJWK(dict(entry)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        return None
    allowed = _algorithms(key)
    if "alg" in entry:
        allowed &= {entry["alg"]}
    return TokenKey(key, allowed) if allowed else None


def _algorithms(key: _PublicKey) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA if _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS else frozenset()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return frozenset({_CURVES[key.curve.name]} if key.curve.name in _CURVES else ())
    return frozenset({"EdDSA"})
