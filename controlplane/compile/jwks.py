"""JSON Web Key Sets as Envoy judges them: one without a usable key has it refuse all providers of a Gateway."""

from __future__ import annotations

import json
from typing import Any

from dragoman.jwks import JwksError, canonicalise

_ALGORITHMS = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA"}),
}
_CURVES = {"EC": frozenset({"P-256", "P-384", "P-521"}), "OKP": frozenset({"Ed25519"})}


def usable(text: str) -> str | None:
    """Returns the key set with the keys that Envoy can verify with alone; None where none is left."""
    try:
        keys: list[dict[str, Any]] = json.loads(canonicalise(text))["keys"]
    except JwksError:
        return None
    kept = [key for key in keys if _is_usable(key)]
    return json.dumps({"keys": kept}, sort_keys=True, separators=(",", ":")) if kept else None


def fault_of(text: str) -> str | None:
    """Returns what is wrong with a key set; None where at least one key is usable."""
    try:
        canonicalise(text)
    except JwksError as error:
        return str(error)
    return None if usable(text) else "none of its keys can be used (RSA, EC P-256/384/521 and Ed25519 can)"


def _is_usable(key: dict[str, Any]) -> bool:
    kind = key["kty"]
    if key.get("alg", next(iter(_ALGORITHMS[kind]))) not in _ALGORITHMS[kind]:
        return False
    if kind in _CURVES and key.get("crv") not in _CURVES[kind]:
        return False
    # Only here: it takes a while to load, and most configurations have no key sets.
    import jwt

    try:
        jwt.PyJWK(key)
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True
