"""JSON Web Tokens: what passes, what is refused, and what the upstream is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.authz import jwt_provider, message, service
from tests.support.tokens import SigningKey, bearer, jwks

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def key(signing_key: SigningKey) -> SigningKey:
    return signing_key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_every_supported_algorithm_passes(algorithm: str, rsa_key: SigningKey) -> None:
    key = (
        SigningKey("k", algorithm, rsa_key.private)
        if algorithm[:2] in ("RS", "PS")
        else SigningKey.make("k", algorithm)
    )
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    assert (await asked.check(bearer(key.token()))).status == 200
    header, payload, signature = key.token().split(".")
    forged = ("A" if signature[4] != "A" else "B").join((signature[:4], signature[5:]))
    answer = await asked.check(bearer(f"{header}.{payload}.{forged}"))
    assert (answer.status, answer.body["error"]) == (401, "invalid_token")


async def test_no_credentials_answer_401_with_a_challenge_and_no_error(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    for headers in ({}, {"authorization": "Basic dXNlcjpwYXNz"}, {"authorization": "Bearer "}):
        answer = await asked.check(headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/json"
        assert answer.body == {
            "error": "missing_credentials",
            "message": "Credentials are required",
            "request_id": "req-1",
        }


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": 1}, "The token has expired"),
        ({"exp": None}, "The token is malformed"),
        ({"nbf": 4102444800}, "The token is not valid yet"),
        ({"iat": 4102444800}, "The token is not valid yet"),
        ({"aud": "other"}, "The token is for another audience"),
        ({"aud": ["other", 7]}, "The token is for another audience"),
        ({"aud": {"shop": 1}}, "The token is for another audience"),
        ({"iss": "https://evil.example"}, "The token's issuer is not accepted"),
        ({"iss": ["https://issuer.example"]}, "The token's issuer is not accepted"),
        ({"exp": "tomorrow"}, "The token is malformed"),
        ({"exp": True}, "The token is malformed"),
        ({"exp": 10**400}, "The token is malformed"),
        ({"nbf": [1]}, "The token is malformed"),
    ],
)
async def test_a_bad_claim_is_refused_and_named(claims: dict[str, Any], says: str, key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key, audiences=["shop", "till"])]))
    payload = {"iss": "https://issuer.example", "aud": "shop", "exp": 4102444800, **claims}
    signed = jwt.api_jws.encode(json.dumps(payload).encode(), key.private, key.algorithm, {"kid": key.kid})
    answer = await asked.check(bearer(signed))
    assert (answer.status, answer.body["message"]) == (401, says)
    assert answer.headers["www-authenticate"] == f'Bearer error="invalid_token", error_description="{says}"'


async def test_one_of_several_audiences_is_enough(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key, audiences=["shop", "till"])]))
    assert (await asked.check(bearer(key.token(aud=["else", "till"])))).status == 200


async def test_clock_skew_is_allowed_for_and_no_more(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key, clock_skew_seconds=30)]))
    assert (await asked.check(bearer(key.token(expires_in_s=-20)))).status == 200
    assert (await asked.check(bearer(key.token(expires_in_s=-40)))).status == 401
    assert (await asked.check(bearer(key.token({"nbf": int(time.time()) + 20})))).status == 200
    assert (await asked.check(bearer(key.token({"nbf": int(time.time()) + 40})))).status == 401


async def test_a_skew_of_zero_is_not_the_default(key: SigningKey) -> None:
    strict = service(message(jwt_providers=[jwt_provider(key, clock_skew_seconds=0)]))
    default = service(message(jwt_providers=[jwt_provider(key)]))
    token = key.token(expires_in_s=-5)
    assert (await strict.check(bearer(token))).status == 401
    assert (await default.check(bearer(token))).status == 200


async def test_a_token_without_expiry_is_refused_unless_the_policy_allows_it(key: SigningKey) -> None:
    token = key.token(expires_in_s=None)
    assert (await service(message(jwt_providers=[jwt_provider(key)])).check(bearer(token))).status == 401
    lenient = service(message(jwt_providers=[jwt_provider(key, allow_no_expiration=True)]))
    assert (await lenient.check(bearer(token))).status == 200


async def test_alg_none_is_refused(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    for algorithm in ("none", "None", "NONE", ""):
        header = b64(json.dumps({"alg": algorithm, "kid": key.kid}).encode())
        payload = key.token().split(".")[1]
        answer = await asked.check(bearer(f"{header}.{payload}."))
        assert (answer.status, answer.body["error"]) == (401, "invalid_token")


async def test_a_public_key_is_no_hmac_secret(rsa_key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(rsa_key)]))
    assert isinstance(rsa_key.private, rsa.RSAPrivateKey)
    public = rsa_key.private.public_key()
    secrets = (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        json.dumps(jwks(rsa_key)).encode(),
    )
    for secret in secrets:
        signed = f"{b64(json.dumps({'alg': 'HS256', 'kid': rsa_key.kid}).encode())}.{rsa_key.token().split('.')[1]}"
        mac = b64(hmac.digest(secret, signed.encode(), hashlib.sha256))
        answer = await asked.check(bearer(f"{signed}.{mac}"))
        assert (answer.status, answer.body["message"]) == (401, "The token's algorithm is not accepted")


async def test_a_key_is_used_for_its_own_algorithm_alone(rsa_key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(rsa_key)]))
    other = SigningKey(rsa_key.kid, "PS256", rsa_key.private)
    assert (await asked.check(bearer(other.token()))).status == 401


async def test_the_policy_can_narrow_the_algorithms(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key, algorithms=["RS256"])]))
    assert (await asked.check(bearer(key.token()))).body["message"] == "The token's algorithm is not accepted"


async def test_a_key_that_the_token_brings_is_not_used(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    own = SigningKey.make("key-1", "ES256")
    for headers in ({"jwk": own.jwk}, {"kid": "mine", "jku": "http://127.0.0.1:1/"}, {"x5c": ["AAAA"]}):
        assert (await asked.check(bearer(own.token(headers=headers)))).status == 401


@pytest.mark.parametrize("headers", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"b64": False}])
async def test_an_extension_that_must_be_understood_is_refused(headers: dict[str, Any], key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    header = b64(json.dumps({"alg": "ES256", "kid": key.kid, **headers}).encode())
    _, payload, signature = key.token().split(".")
    assert (await asked.check(bearer(f"{header}.{payload}.{signature}"))).body["error"] == "invalid_token"


async def test_an_unknown_kid_is_refused_and_a_token_without_one_tries_the_keys(key: SigningKey) -> None:
    other = SigningKey.make("key-2", "ES256")
    asked = service(message(jwt_providers=[jwt_provider(other, key)]))
    unknown = SigningKey("key-9", "ES256", key.private)
    assert (await asked.check(bearer(unknown.token()))).body["message"] == "The token is signed with an unknown key"
    bare = jwt.encode({"iss": "https://issuer.example", "exp": 4102444800}, key.private, "ES256")
    assert (await asked.check(bearer(bare))).status == 200


async def test_each_issuer_has_its_own_keys(key: SigningKey) -> None:
    second = SigningKey.make("key-2", "EdDSA")
    providers = [
        jwt_provider(key),
        jwt_provider(second, name="second", issuer="https://second.example"),
    ]
    asked = service(message(jwt_providers=providers))
    assert (await asked.check(bearer(second.token(iss="https://second.example")))).status == 200
    assert (await asked.check(bearer(second.token()))).status == 401
    assert (await asked.check(bearer(key.token(iss="https://second.example")))).status == 401


async def test_missing_scopes_answer_403_and_name_them(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key, required_scopes=["orders:read", "orders:write"])]))
    answer = await asked.check(bearer(key.token({"scope": "orders:read openid"})))
    assert (answer.status, answer.body["error"]) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert 'scope="orders:read orders:write"' in answer.headers["www-authenticate"]
    for claims in ({"scope": "orders:read orders:write"}, {"scp": ["orders:read", "orders:write", "more"]}):
        assert (await asked.check(bearer(key.token(claims)))).status == 200


async def test_missing_roles_answer_403(key: SigningKey) -> None:
    provider = jwt_provider(key, required_roles=["admin"], roles_claim="realm_access.roles")
    asked = service(message(jwt_providers=[provider]))
    assert (await asked.check(bearer(key.token({"realm_access": {"roles": ["user", "admin"]}})))).status == 200
    answer = await asked.check(bearer(key.token({"realm_access": {"roles": ["user"]}, "roles": ["admin"]})))
    assert (answer.status, answer.body["error"]) == (403, "forbidden")


async def test_claims_become_headers_and_what_is_absent_is_removed(key: SigningKey) -> None:
    wanted = {
        "sub": "x-sub",
        "org.id": "x-org",
        "admin": "x-admin",
        "groups": "x-groups",
        "https://c.example/tier": "x-tier",
        "absent": "x-absent",
        "evil": "x-evil",
        "org.id.deeper": "x-deeper",
    }
    mapped = [{"claim": claim, "header": header} for claim, header in wanted.items()]
    asked = service(message(jwt_providers=[jwt_provider(key, claim_to_headers=mapped)]))
    claims = {
        "org": {"id": 42},
        "admin": True,
        "groups": ["a", "b"],
        "https://c.example/tier": "gold",
        "evil": "x\r\nx-role: admin",
    }
    answer = await asked.check(bearer(key.token(claims)))
    assert answer.headers == {
        "x-sub": "alice",
        "x-org": "42",
        "x-admin": "true",
        "x-groups": base64.b64encode(b'["a","b"]').decode(),
        "x-tier": "gold",
    }
    assert answer.removed == {"x-absent", "x-evil", "x-deeper"}
    overwrite = answer.raw.ok_response.headers[0].append_action
    assert overwrite == 2, "OVERWRITE_IF_EXISTS_OR_ADD"


async def test_dynamic_metadata_tells_who_calls(key: SigningKey) -> None:
    provider = jwt_provider(key, claim_to_metadata=[{"claim": "plan", "key": "plan"}])
    asked = service(message(jwt_providers=[provider]))
    answer = await asked.check(bearer(key.token({"plan": "gold", "scope": "b a"})))
    assert answer.metadata == {
        "kind": "jwt",
        "consumer": "alice",
        "scopes": ["a", "b"],
        "metadata": {"plan": "gold"},
    }


async def test_tokens_are_found_where_the_policy_says(key: SigningKey) -> None:
    places = {
        "headers": [{"name": "X-Token", "value_prefix": "JWT "}],
        "params": ["token"],
        "cookies": ["session"],
    }
    asked = service(message(jwt_providers=[jwt_provider(key, extract_from=places, sanitize=True)]))
    token = key.token()
    assert (await asked.check({"x-token": f"jwt {token}"})).status == 200
    assert (await asked.check(path=f"/a?b=1&token={token}")).status == 200
    answer = await asked.check({"cookie": f"a=1; session={token}; b=2"})
    assert (answer.status, answer.headers["cookie"]) == (200, "a=1; b=2")
    assert "x-token" in answer.removed
    assert list(answer.raw.ok_response.query_parameters_to_remove) == ["token"]
    assert "cookie" in (await asked.check({"cookie": f"session={token}"})).removed
    assert (await asked.check(bearer(token))).status == 401


async def test_anonymous_requests_pass_without_identity_where_allowed_and_bad_tokens_do_not(key: SigningKey) -> None:
    provider = jwt_provider(key, claim_to_headers=[{"claim": "sub", "header": "x-sub"}])
    asked = service(message(jwt_providers=[provider], allow_anonymous=True))
    answer = await asked.check({"x-sub": "mallory"})
    assert (answer.status, answer.headers, answer.removed) == (200, {}, {"x-sub"})
    assert answer.metadata == {"kind": "anonymous"}
    assert (await asked.check(bearer("nonsense"))).status == 401


async def test_authorization_by_claims_scopes_and_subject(key: SigningKey) -> None:
    rules = [
        {"action": "DENY", "clients": ["mallory"]},
        {"action": "ALLOW", "provider": "issuer", "claims": [{"name": "org.id", "values": ["42", "43"]}]},
        {"action": "ALLOW", "scopes": ["admin"], "claims": [{"name": "groups", "values": ["ops"]}]},
    ]
    asked = service(message(jwt_providers=[jwt_provider(key)], authorization={"rules": rules}))

    async def status(sub: str = "alice", **claims: Any) -> int:
        return (await asked.check(bearer(key.token(claims, sub=sub)))).status

    assert await status(org={"id": 42}) == 200
    assert await status("mallory", org={"id": 42}) == 403
    assert await status(org={"id": 44}) == 403
    assert await status(scope="admin", groups=["dev", "ops"]) == 200
    assert await status(scope="admin", groups=["dev"]) == 403
    open_by_default = service(
        message(jwt_providers=[jwt_provider(key)], authorization={"default_action": "ALLOW", "rules": rules[:1]})
    )
    assert (await open_by_default.check(bearer(key.token()))).status == 200


async def test_anonymous_requests_are_subject_to_authorization(key: SigningKey) -> None:
    def policy(**authorization: Any) -> Any:
        return message(
            jwt_providers=[jwt_provider(key)],
            allow_anonymous=True,
            authorization={"rules": [{"action": "ALLOW", "clients": ["alice"]}], **authorization},
        )

    closed, opened = service(policy()), service(policy(default_action="ALLOW"))
    assert (await closed.check()).status == 403
    assert (await closed.check(bearer(key.token()))).status == 200
    assert (await opened.check()).status == 200
    assert (await service(policy(rules=[{"action": "ALLOW"}])).check()).status == 200


async def test_text_that_is_escaped_in_the_token_arrives_whole(key: SigningKey) -> None:
    provider = jwt_provider(key, claim_to_headers=[{"claim": "name", "header": "x-name"}])
    asked = service(message(jwt_providers=[provider]))
    assert (await asked.check(bearer(key.token({"name": "Zoë 🎉"})))).headers == {"x-name": "Zoë 🎉"}


async def test_a_verified_token_is_not_verified_again_until_it_expires(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    token = key.token(expires_in_s=100)
    for _ in range(3):
        assert (await asked.check(bearer(token))).status == 200
    assert (asked.stats.decided, asked.stats.cached) == (1, 2)
    asked.offset_s[0] = 170.0
    assert (await asked.check(bearer(token))).body["message"] == "The token has expired"


async def test_a_verdict_is_not_taken_over_by_another_policy_or_a_new_content(key: SigningKey) -> None:
    strict = message("shop/strict/h1", jwt_providers=[jwt_provider(key, audiences=["strict"])])
    asked = service(message(jwt_providers=[jwt_provider(key)]), strict)
    token = key.token()
    assert (await asked.check(bearer(token))).status == 200
    assert (await asked.check(bearer(token), policy="shop/strict/h1")).status == 401
    asked.put(message(jwt_providers=[jwt_provider(key, audiences=["strict"])]))
    assert (await asked.check(bearer(token))).status == 401


async def test_a_token_over_8_kib_is_refused_unread(key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(key)]))
    answer = await asked.check(bearer(key.token({"pad": "x" * 9000})))
    assert (answer.status, answer.body["message"]) == (401, "The token is longer than 8192 bytes")


async def test_private_symmetric_and_weak_keys_of_a_jwks_are_not_used(key: SigningKey) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    document = {
        "keys": [
            {"kty": "oct", "k": b64(b"secret" * 8), "kid": "hs", "alg": "HS256"},
            SigningKey("weak", "RS256", weak).jwk,
            {**key.jwk, "use": "enc"},
            {**key.jwk, "key_ops": ["sign"]},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            7,
        ]
    }
    asked = service(message(jwt_providers=[jwt_provider(inline_jwks=json.dumps(document))]))
    assert asked.policies.by_id["shop/orders/h1"].providers[0].keys.keys == ()
    assert len(asked.policies.by_id["shop/orders/h1"].providers[0].keys.skipped) == 6
    hs = jwt.encode({"iss": "https://issuer.example", "exp": 4102444800}, b"secret" * 8, "HS256", {"kid": "hs"})
    assert (await asked.check(bearer(hs))).status == 401
    assert (await asked.check(bearer(key.token()))).status == 401
