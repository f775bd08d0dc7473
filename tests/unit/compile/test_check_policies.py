"""What is wrong with policies that their schema accepts, each fault with its field."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.api.load import load
from controlplane.compile.check import check
from tests.e2e.policy_manifests import limits, provider, security
from tests.support.tokens import SigningKey, jwks

KEY = SigningKey.make()
ODD = {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "oct", "k": "c2VjcmV0"}]}


def faults(document: dict[str, Any]) -> list[str]:
    loaded = load(document)
    assert loaded.object is not None, loaded.faults
    return [fault.path for fault in check(loaded.object, now=datetime.now(UTC))]


def inline(document: Any) -> dict[str, Any]:
    text = document if isinstance(document, str) else json.dumps(document)
    return {"providers": [{"name": "main", "localJWKS": {"inline": text}}]}


def rule(action: str, **principal: Any) -> dict[str, Any]:
    return {"action": action, "principal": principal or {"clientCIDRs": ["10.0.0.0/8"]}}


def one(count: int = 1, unit: str = "Day", **more: Any) -> dict[str, Any]:
    return {"limit": {"requests": count, "unit": unit}, **more}


JWKS = "spec.jwt.providers[0].localJWKS.inline"
RULES = "spec.rateLimit.global.rules[0]"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"jwt": inline(jwks(KEY))}, []),
        ({"jwt": inline("nonsense")}, [JWKS]),
        ({"jwt": inline({"keys": []})}, [JWKS]),
        ({"jwt": inline(ODD)}, [JWKS]),
        ({"jwt": inline({"keys": [*ODD["keys"], KEY.jwk]})}, []),
        (
            {"jwt": {"providers": [provider(KEY, claimToHeaders=[{"claim": "sub", "header": "Host"}])]}},
            ["spec.jwt.providers[0].claimToHeaders[0].header"],
        ),
        ({"consumers": {"forwardClientIDHeader": "cookie"}}, ["spec.consumers.forwardClientIDHeader"]),
        (
            {"consumers": {"metadataToHeaders": [{"key": "k", "header": "te"}]}},
            ["spec.consumers.metadataToHeaders[0].header"],
        ),
        (
            {
                "jwt": inline(jwks(KEY)),
                "authorization": {"rules": [rule("Allow", jwt={"provider": "typo", "scopes": ["read"]})]},
            },
            ["spec.authorization.rules[0].principal.jwt.provider"],
        ),
        ({"authorization": {"rules": [rule("Allow", jwt={"provider": "above", "scopes": ["read"]})]}}, []),
        (
            {
                "authorization": {
                    "rules": [
                        {**rule("Deny"), "operation": {"path": {"type": "RegularExpression", "value": "("}}},
                    ]
                }
            },
            ["spec.authorization.rules[0].operation.path.value"],
        ),
        ({"authorization": {"rules": [rule("Allow"), rule("Deny")] * 8}}, []),
        ({"authorization": {"rules": [rule("Allow"), rule("Deny")] * 9}}, ["spec.authorization.rules"]),
    ],
)
def test_security_policies(fields: dict[str, Any], expected: list[str]) -> None:
    assert faults(security("p", **fields)) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"global": {"rules": [one(0), one(5, algorithm="TokenBucket", burst=2)]}}, []),
        ({"global": {"rules": [one(3_000_000, "Year", algorithm="TokenBucket", burst=300_000)]}}, []),
        ({"global": {"rules": [one(0, algorithm="TokenBucket", burst=2)]}}, [f"{RULES}.burst"]),
        ({"global": {"rules": [one(3_000_000, algorithm="Concurrency")]}}, [f"{RULES}.limit.requests"]),
        (
            {
                "global": {
                    "rules": [
                        one(clientSelectors=[{"headers": [{"name": "a", "type": "RegularExpression", "value": "["}]}])
                    ]
                }
            },
            [f"{RULES}.clientSelectors[0].headers[0].value"],
        ),
        ({"global": {"rules": [one(cost={"response": {"from": "Number", "number": 2}})]}}, []),
        (
            {"global": {"rules": [one(algorithm="TokenBucket", cost={"response": {"from": "Number", "number": 2}})]}},
            [f"{RULES}.cost.response"],
        ),
        ({"local": {"rules": [one(), one(clientSelectors=[{"methods": [{"value": "GET"}]}])]}}, []),
        ({"local": {"rules": [one(), one()]}}, ["spec.rateLimit.local.rules[1].clientSelectors"]),
        (
            {"local": {"rules": [one(cost={"request": {"from": "Number", "number": 0}})]}},
            ["spec.rateLimit.local.rules[0].cost.request.number"],
        ),
        ({"local": {"rules": [one(0)]}}, ["spec.rateLimit.local.rules[0].limit.requests"]),
    ],
)
def test_limits(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults(limits("p", spec)) == expected


def claimed(name: str, *values: str, **more: Any) -> dict[str, Any]:
    claim = {"name": name, **({"values": list(values)} if values else {"type": "Distinct"}), **more}
    return one(clientSelectors=[{"claims": [claim]}])


def identity(**given: str) -> dict[str, Any]:
    return {"plans": {"identity": given, "default": "free"}}


LONG = [f"{number:03}{'x' * 1000}" for number in range(128)]
AT = f"{RULES}.clientSelectors[0]"
WHO = "spec.rateLimit.global.plans.identity"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"rules": [one(clientSelectors=[{"headers": [{"name": "x", "type": "RegularExpression", "value": ""}]}])]},
            [f"{AT}.headers[0].value"],
        ),
        ({"rules": [claimed("a.b.c.d.e.f.g.h")]}, []),
        ({"rules": [claimed("a.b.c.d.e.f.g.h.i")]}, [f"{AT}.claims[0].name"]),
        ({"rules": [claimed("a", *LONG)]}, [f"{AT}.claims[0].values"]),
        ({"rules": [claimed("a", *LONG[:90], provider="main")]}, []),
        (
            {"rules": [claimed("a", *(str(each) for each in range(128)), valueType="StringArray")]},
            [f"{AT}.claims[0].values"],
        ),
        ({"rules": [claimed("a", *(f"role{each}x" for each in range(128)), valueType="StringArray")]}, []),
        (identity(**{"from": "Headers", "plan": "x-plan", "consumer": "Authorization"}), [f"{WHO}.consumer"]),
        (identity(**{"from": "Headers", "plan": "host", "consumer": "x-client"}), [f"{WHO}.plan"]),
        (identity(**{"from": "Token", "tenant": "a.b.c.d.e.f.g.h.i"}), [f"{WHO}.tenant"]),
    ],
)
def test_what_envoy_would_refuse_of_a_limit_is_a_fault(given: dict[str, Any], expected: list[str]) -> None:
    assert faults(limits("api", {"global": given})) == expected


@pytest.mark.parametrize("key", ["a::b", ":", "a:", ":a"])
def test_a_key_in_metadata_has_no_empty_steps(key: str) -> None:
    source = {"namespace": "n", "key": key}
    loaded = load(
        limits("api", {"global": {"rules": [{"limit": {"requests": 1, "unit": "Day", "fromMetadata": source}}]}})
    )
    assert [fault.path for fault in loaded.faults] == [f"{RULES}.limit.fromMetadata.key"]
