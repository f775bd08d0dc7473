"""Service-account tokens: whose they are, and what is refused."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from controlplane.xds.authentication import Metadata
from controlplane.xds.identity import Principal, Refusal
from controlplane.xds.tokens import MAX_TOKEN, ServiceAccountTokens
from tests.support.tokens import SigningKey
from tests.unit.xds.accounts import ISSUER, Issuer, shown

EDGE = Principal("gateway", service_account=("demo", "dragoman-edge"))


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def refusal(tokens: ServiceAccountTokens, token: str) -> str:
    found = await tokens.authenticate(shown(token))
    assert isinstance(found, Refusal)
    assert token not in found.message
    return found.message


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
async def test_a_token_tells_the_gateway_by_its_service_account(algorithm: str) -> None:
    issuer = Issuer(SigningKey.make("k1", algorithm))
    tokens = ServiceAccountTokens(issuer.fetch)
    assert await tokens.authenticate(shown(issuer.token("demo", "dragoman-edge"))) == EDGE


async def test_the_services_are_told_by_their_service_accounts(issuer: Issuer) -> None:
    tokens = ServiceAccountTokens(issuer.fetch, services={("dragoman", "authz"): "authz"})
    assert await tokens.authenticate(shown(issuer.token("dragoman", "authz"))) == Principal("service", "authz")
    elsewhere = await tokens.authenticate(shown(issuer.token("demo", "authz")))
    assert elsewhere == Principal("gateway", service_account=("demo", "authz"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda issuer: issuer.token("demo", "e", aud=["https://kubernetes.default.svc"]), "audience"),
        (lambda issuer: issuer.token("demo", "e", aud=None), "aud"),
        (lambda issuer: issuer.token("demo", "e", iss="https://elsewhere.example"), "issuer"),
        (lambda issuer: issuer.token("demo", "e", expires_in_s=-60), "expired"),
        (lambda issuer: issuer.token("demo", "e", expires_in_s=None), "exp"),
        (lambda issuer: issuer.token("demo", "e", claims={"nbf": 4_000_000_000}), "not valid yet"),
        (lambda issuer: issuer.token("demo", "e", claims={"exp": True}), "cannot be read"),
        (lambda issuer: issuer.token("demo", "e", claims={"exp": "soon"}), "cannot be read"),
        (lambda issuer: issuer.token("demo", "e", sub="alice"), "service account"),
        (lambda issuer: issuer.token("demo", "e", sub="system:serviceaccount:other:e"), "service account"),
        (lambda issuer: issuer.token("demo", "e", claims={"kubernetes.io": None}), "service account"),
        (lambda issuer: issuer.token("demo", "e", key=SigningKey.make("k1")), "signature"),
        (lambda issuer: issuer.token("demo", "e", key=SigningKey.make("k2")), "unknown key"),
        (lambda issuer: issuer.token("demo", "e", headers={"crit": ["exp"]}), "cannot be read"),
        (lambda issuer: "a.b.c", "cannot be read"),
        (lambda issuer: "x", "cannot be read"),
        (lambda issuer: "ü.ü.ü", "cannot be read"),
        (lambda issuer: "a" * (MAX_TOKEN + 1), "longer than"),
    ],
)
async def test_a_token_that_is_not_for_us_is_refused_with_the_reason(
    issuer: Issuer, change: Callable[[Issuer], str], why: str
) -> None:
    assert why in await refusal(ServiceAccountTokens(issuer.fetch), change(issuer))


async def test_a_public_key_is_no_secret_to_sign_with() -> None:
    key = SigningKey.make("k1", "RS256")
    issuer = Issuer(key)
    public = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    genuine = issuer.token("demo", "dragoman-edge")
    claims = jwt.decode(genuine, options={"verify_signature": False})
    head = base64url(json.dumps({"alg": "HS256", "kid": "k1", "typ": "JWT"}).encode())
    body = base64url(json.dumps(claims).encode())
    signed = hmac.digest(public, f"{head}.{body}".encode(), "sha256")
    tokens = ServiceAccountTokens(issuer.fetch)
    assert "algorithm" in await refusal(tokens, f"{head}.{body}.{base64url(signed)}")


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "PS256", "RS512"])
async def test_an_algorithm_that_is_not_the_keys_is_refused(algorithm: str) -> None:
    issuer = Issuer(SigningKey.make("k1", "RS256"))
    _, body, signature = issuer.token("demo", "dragoman-edge").split(".")
    head = base64url(json.dumps({"alg": algorithm, "kid": "k1"}).encode())
    tokens = ServiceAccountTokens(issuer.fetch)
    assert "algorithm" in await refusal(tokens, f"{head}.{body}.{signature}")
    assert "algorithm" in await refusal(tokens, f"{head}.{body}.")


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic YTpi"),),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
    ],
)
async def test_who_shows_no_token_or_two_is_refused(issuer: Issuer, metadata: Metadata) -> None:
    assert isinstance(await ServiceAccountTokens(issuer.fetch).authenticate(metadata), Refusal)


async def test_a_token_is_refused_when_its_time_is_over_though_it_was_good_before(issuer: Issuer) -> None:
    clock = Clock()
    token = issuer.token("demo", "dragoman-edge", claims={"iat": 0, "nbf": 0, "exp": 600})
    tokens = ServiceAccountTokens(issuer.fetch, now=clock)
    assert await tokens.authenticate(shown(token)) == EDGE
    clock.now = 600
    assert await tokens.authenticate(shown(token)) == EDGE  # Clocks differ a little.
    clock.now = 630
    assert "expired" in await refusal(tokens, token)


async def test_a_key_that_is_new_is_fetched_when_a_token_names_it_but_not_for_everybody_who_asks(
    issuer: Issuer,
) -> None:
    clock = Clock()
    tokens = ServiceAccountTokens(issuer.fetch, clock=clock)
    assert await tokens.authenticate(shown(issuer.token("demo", "dragoman-edge"))) == EDGE
    issuer.keys.insert(0, SigningKey.make("k2"))
    fetches = issuer.key_fetches
    for _ in range(50):
        assert "unknown key" in await refusal(tokens, issuer.token("demo", "dragoman-edge"))
    assert issuer.key_fetches == fetches
    clock.now += 11
    assert await tokens.authenticate(shown(issuer.token("demo", "dragoman-edge"))) == EDGE
    assert issuer.key_fetches == fetches + 1


async def test_a_key_that_is_withdrawn_verifies_nothing_any_more(issuer: Issuer) -> None:
    clock = Clock()
    tokens = ServiceAccountTokens(issuer.fetch, clock=clock)
    old = issuer.token("demo", "dragoman-edge")
    assert await tokens.authenticate(shown(old)) == EDGE
    issuer.keys[0] = SigningKey.make("k2")
    clock.now += 11
    assert await tokens.authenticate(shown(issuer.token("demo", "dragoman-edge"))) == EDGE
    assert "unknown key" in await refusal(tokens, old)


async def test_an_outage_of_the_api_server_keeps_nobody_out(issuer: Issuer) -> None:
    clock = Clock()
    tokens = ServiceAccountTokens(issuer.fetch, clock=clock)
    assert await tokens.authenticate(shown(issuer.token("demo", "dragoman-edge"))) == EDGE
    issuer.fault = OSError("connection refused")
    clock.now += 3600
    other = issuer.token("demo", "dragoman-other")
    assert await tokens.authenticate(shown(other)) == Principal("gateway", service_account=("demo", "dragoman-other"))
    stranger = issuer.token("demo", "dragoman-edge", key=SigningKey.make("k9"))
    assert "unknown key" in await refusal(tokens, stranger)
    assert tokens.ready
    assert tokens.fault == "connection refused"


async def test_before_the_first_keys_nobody_is_let_in(issuer: Issuer) -> None:
    issuer.fault = OSError("down")
    tokens = ServiceAccountTokens(issuer.fetch)
    assert "cannot be verified yet" in await refusal(tokens, issuer.token("demo", "dragoman-edge"))
    assert not tokens.ready


async def test_keys_that_are_secrets_or_weak_are_left_out() -> None:
    async def fetch(path: str) -> dict[str, object]:
        weak = {"kty": "RSA", "kid": "weak", "n": base64url(b"\xff" * 64), "e": "AQAB", "alg": "RS256"}
        secret = {"kty": "oct", "kid": "k1", "k": base64url(b"secret" * 8), "alg": "HS256"}
        return {"issuer": ISSUER, "keys": [weak, secret]}

    tokens = ServiceAccountTokens(fetch)
    secret = jwt.encode({"sub": "system:serviceaccount:a:b"}, "secret" * 8, "HS256", {"kid": "k1"})
    assert "cannot be verified yet" in await refusal(tokens, secret)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
