"""Signing keys, JWKS documents and tokens for tests."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its id and algorithm."""

    kid: str
    algorithm: str
    private: PrivateKey

    @staticmethod
    def make(kid: str = "key-1", algorithm: str = "ES256") -> SigningKey:
        """Makes a key for RS*, PS*, ES256, ES384, ES512 or EdDSA (Ed25519); RSA takes some 50 ms, the others none."""
        if algorithm[:2] in ("RS", "PS"):
            return SigningKey(kid, algorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048))
        if algorithm == "EdDSA":
            return SigningKey(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
        return SigningKey(kid, algorithm, ec.generate_private_key(_CURVES[algorithm]()))

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as a JWK."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            text = RSAAlgorithm.to_jwk(self.private.public_key())
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            text = ECAlgorithm.to_jwk(self.private.public_key())
        else:
            text = OKPAlgorithm.to_jwk(self.private.public_key())
        public: dict[str, Any] = json.loads(text)
        public.pop("key_ops", None)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def token(
        self,
        claims: Mapping[str, Any] | None = None,
        *,
        sub: str = "alice",
        iss: str | None = "https://issuer.example",
        aud: str | Sequence[str] | None = None,
        expires_in_s: float | None = 3600,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns a signed token; a None leaves the claim out, `claims` are added last and win."""
        now = int(time.time())
        payload: dict[str, Any] = {"sub": sub, "iat": now, "iss": iss, "aud": aud}
        payload["exp"] = None if expires_in_s is None else int(now + expires_in_s)
        payload = {name: value for name, value in payload.items() if value is not None} | dict(claims or {})
        return jwt.encode(payload, self.private, self.algorithm, {"kid": self.kid, **(headers or {})})


def jwks(*keys: SigningKey) -> dict[str, Any]:
    """Returns the JWKS document of these keys."""
    return {"keys": [key.jwk for key in keys]}


def bearer(token: str) -> dict[str, str]:
    """Returns the request header that carries a token."""
    return {"authorization": f"Bearer {token}"}
