"""A provider's JSON Web Key Set, parsed once into the key objects that verify tokens."""

import hashlib
import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

# Only signatures of which the verifier holds no secret: with HS256 a public key would pass for the secret.
ALGORITHMS: Mapping[str, tuple[str, tuple[str | None, ...]]] = {
    "RS256": ("RSA", (None,)),
    "RS384": ("RSA", (None,)),
    "RS512": ("RSA", (None,)),
    "PS256": ("RSA", (None,)),
    "PS384": ("RSA", (None,)),
    "PS512": ("RSA", (None,)),
    "ES256": ("EC", ("P-256",)),
    "ES384": ("EC", ("P-384",)),
    "ES512": ("EC", ("P-521",)),
    "EdDSA": ("OKP", ("Ed25519", "Ed448")),
}
"""Name of each algorithm, with the key type and the curves that it takes (RFC 7518 §3.1, RFC 8037 §3.1)."""

MIN_RSA_BITS = 2048
MAX_KEYS = 100
MAX_CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key that may verify tokens."""

    kid: str
    algorithms: frozenset[str]
    key: Any
    """The key object that pyjwt takes."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class KeySet:
    """The keys of one issuer; `skipped` says which members of the document are of no use here, and why."""

    keys: tuple[SigningKey, ...] = ()
    skipped: tuple[str, ...] = ()

    def candidates(self, kid: str | None, algorithm: str) -> tuple[SigningKey, ...]:
        """Keys that may have signed a token with this header: a key with another name did not."""
        fitting = (key for key in self.keys if algorithm in key.algorithms and (kid is None or key.kid in ("", kid)))
        return tuple(fitting)[:MAX_CANDIDATES]


class KeySets:
    """Parses a document once for all policies that have the same one."""

    def __init__(self) -> None:
        self._parsed: weakref.WeakValueDictionary[bytes, KeySet] = weakref.WeakValueDictionary()

    def parse(self, document: str) -> KeySet:
        """Does as `parse_keys` does."""
        digest = hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
        found = self._parsed.get(digest)
        if found is None:
            found = self._parsed[digest] = parse_keys(document)
        return found


def parse_keys(document: str) -> KeySet:
    """Reads a JWKS document (RFC 7517 §5); raises ValueError where it is none."""
    try:
        loaded = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ValueError("the JWKS is not JSON") from error
    members = cast("dict[str, Any]", loaded).get("keys") if isinstance(loaded, dict) else None
    if not isinstance(members, list):
        raise ValueError("the JWKS has no list 'keys'")
    members = cast("list[Any]", members)
    if len(members) > MAX_KEYS:
        raise ValueError(f"the JWKS has more than {MAX_KEYS} keys")
    read = [_read(number, member) for number, member in enumerate(members)]
    keys = tuple(key for key in read if isinstance(key, SigningKey))
    return KeySet(keys, tuple(fault for fault in read if isinstance(fault, str)))


def _read(number: int, member: Any) -> SigningKey | str:
    if not isinstance(member, dict):
        return f"keys[{number}]: not an object"
    jwk = cast("dict[str, Any]", member)
    fault = _unfit(jwk)
    if fault:
        return f"keys[{number}]: {fault}"
    fitting = _algorithms(jwk)
    if not fitting:
        return f"keys[{number}]: fits no supported algorithm"
    try:
        # pyjwt wants an algorithm to read a key by; any of the key's family reads it alike.
        key = jwt.PyJWK(jwk, algorithm=min(fitting)).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        return f"keys[{number}]: {type(error).__name__}"
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return f"keys[{number}]: an RSA key of fewer than {MIN_RSA_BITS} bits"
    kid = jwk.get("kid")
    return SigningKey(kid if isinstance(kid, str) else "", fitting, key)


def _unfit(jwk: Mapping[str, Any]) -> str:
    if jwk.get("kty") == "oct":
        return "a symmetric key; not supported"
    if "d" in jwk:
        return "a private key"
    if jwk.get("use", "sig") != "sig":
        return "not for signatures (use)"
    operations = jwk.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return "not for verifying (key_ops)"
    return ""


def _algorithms(jwk: Mapping[str, Any]) -> frozenset[str]:
    kind, curve, named = jwk.get("kty"), jwk.get("crv"), jwk.get("alg")
    fitting = {name for name, (kty, curves) in ALGORITHMS.items() if kty == kind and curve in curves}
    return frozenset(fitting if named is None else fitting & {named} if isinstance(named, str) else ())
