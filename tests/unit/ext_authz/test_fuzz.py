"""Whatever bytes a client sends as credentials, it is answered 200, 401 or 403, and nothing breaks."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import jwt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ext_authz.credentials import fingerprint
from tests.support.authz import POLICY, RecordedCall, Service, check_request, jwt_provider, message, service
from tests.support.tokens import SigningKey

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "zip", "enc", "cty", "jku"])
CLAIMS = st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "scope", "scp", "roles", "org", "jti"])


@cache
def asked() -> tuple[Service, SigningKey]:
    key = SigningKey.make("key-1")
    places = {
        "headers": [{"name": "authorization", "value_prefix": "Bearer "}, {"name": "x-raw"}],
        "params": ["token"],
        "cookies": ["token"],
    }
    provider = jwt_provider(
        key,
        issuer="",
        extract_from=places,
        claim_to_headers=[{"claim": name, "header": f"x-{name}"} for name in ("sub", "org.id", "roles")],
        required_scopes=["read"],
        sanitize=True,
    )
    keys = {"inline_keys": [{"id": "k", "client": "c", "sha256": "A" * 43 + "="}], "extract_from": places}
    return service(message(jwt_providers=[provider], api_keys=keys)), key


async def answers(headers: dict[str, str], path: str = "/") -> int:
    answer = await asked()[0].check_bytes(check_request(headers, path=path))
    assert answer.status in (200, 401, 403)
    if answer.status != 200:
        assert set(answer.body) == {"error", "message", "request_id"}
        assert all(value.isprintable() for value in answer.headers.values())
    return answer.status


def signed(header: dict[str, Any], payload: bytes) -> str:
    """A token whose signature is good, whatever it says."""
    key = asked()[1]
    return jwt.api_jws.encode(payload, key.private, "ES256", {"kid": "key-1", **header})


@given(value=TEXT, path=TEXT, cookie=TEXT)
@example(value="..", path="?token=..", cookie="token=")
@example(value="a.b.c", path="/?token=%ff%fe&token", cookie='token="a.b.c"; token')
@example(value="\x00", path="\x00?\x00", cookie="\x00=\x00")
@settings(max_examples=300, deadline=None)
async def test_any_text_as_a_credential_is_refused(value: str, path: str, cookie: str) -> None:
    headers = {"authorization": f"Bearer {value}", "x-raw": value, "cookie": f"token={cookie}"}
    assert await answers(headers, f"/?token={path}") == 401


@given(parts=st.lists(st.binary(max_size=300), min_size=2, max_size=5))
@settings(max_examples=300, deadline=None)
async def test_any_bytes_in_the_form_of_a_token_are_refused(parts: list[bytes]) -> None:
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    assert await answers({"authorization": f"Bearer {token}"}) == 401


@given(header=st.dictionaries(NAMES, JSON, max_size=5), payload=JSON)
@settings(max_examples=300, deadline=None)
async def test_any_header_and_payload_are_refused_without_a_signature(header: dict[str, Any], payload: Any) -> None:
    parts = (json.dumps(part).encode() for part in (header, payload))
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    assert await answers({"x-raw": f"{token}.c2ln"}) == 401


@given(claims=st.dictionaries(CLAIMS, JSON, max_size=6), scoped=st.booleans())
@example(claims={"exp": 1e308, "sub": "\ud800"}, scoped=True)
@example(claims={"exp": 10**400}, scoped=True)
@example(claims={"org": {"id": "\r\nx-admin: 1"}}, scoped=True)
@settings(max_examples=300, deadline=None)
async def test_any_claims_that_are_signed_harm_nothing(claims: dict[str, Any], scoped: bool) -> None:
    payload = {"exp": 4102444800, "scope": "read" if scoped else "", **claims}
    await answers({"x-raw": signed({}, json.dumps(payload).encode())})


@given(payload=st.binary(max_size=400))
@example(payload=b"[" * 5000)
@example(payload=b'{"exp":' + b"9" * 5000 + b"}")
@example(payload=b'{"exp": NaN}')
@example(payload=rb'{"exp": 4102444800, "scope": "read \udc00", "sub": "\ud800"}')
@example(payload=rb'{"exp": 4102444800, "scope": "read", "org": {"id": "\ud800"}}')
@example(payload=b'{"exp": Infinity}')
@settings(max_examples=200, deadline=None)
async def test_any_payload_that_is_signed_harms_nothing(payload: bytes) -> None:
    assert await answers({"x-raw": signed({}, payload)}) in (401, 403)


@given(body=st.binary(max_size=500))
@settings(max_examples=300, deadline=None)
async def test_any_bytes_as_a_check_request_get_one_answer(body: bytes) -> None:
    call = RecordedCall()
    asked()[0].checker(body, call)
    assert len(call.bodies) + len(call.failures) == 1


@given(st.lists(TEXT, min_size=4, max_size=4), st.lists(TEXT, min_size=4, max_size=4))
@example(["1:a", "", "", ""], ["", "1:a", "", ""])
@example(["", "0:", "", ""], ["0:", "", "", ""])
@settings(max_examples=300, deadline=None)
def test_different_credentials_never_share_a_verdict(first: list[str], second: list[str]) -> None:
    policy = asked()[0].policies.by_id[POLICY]
    for size in (1, 2, 4):
        same = fingerprint(policy, first[:size]) == fingerprint(policy, second[:size])
        assert same == (first[:size] == second[:size])
