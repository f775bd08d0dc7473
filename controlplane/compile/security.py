"""SecurityPolicies, each on its own: who may call, and how they prove who they are. The merge is in `policies`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from controlplane import ir
from controlplane.api import authorization as api_authorization
from controlplane.api.apikey import APIKeyAuth, Consumers, ExtractFrom
from controlplane.api.fields import unsupported_fields
from controlplane.api.jwt import JWTProvider
from controlplane.api.meta import ObjectKey
from controlplane.api.scalars import parse_duration
from controlplane.api.securitypolicy import CORS, SecurityPolicy, SecurityPolicySpec
from controlplane.compile import jwks
from controlplane.compile.keys import read_keys
from controlplane.compile.view import View
from controlplane.conditions import Condition, false

# More keys than this on a route are checked by ext_authz, so that route configurations stay small.
MAX_NATIVE_KEYS = 100
AUTHENTICATION = ("jwt", "api_keys", "keys", "authorization")
# What may be left out without letting anybody in.
_HARMLESS = ("spec.mergeType", "spec.jwt.providers[")


@dataclass(frozen=True, slots=True)
class Security:
    """What one SecurityPolicy asks for. Rules of `authorization` still name JWT providers as the policy does."""

    key: ObjectKey
    created_s: float = 0.0
    cors: ir.Cors | None = None
    jwt: ir.Jwt | None = None
    api_keys: ir.ApiKeys | None = None
    hashed_keys: ir.KeyPolicy | None = None  # `api_keys` for ext_authz, where they are too many for Envoy
    keys: ir.KeyPolicy | None = None
    authorization: ir.Authorization | None = None
    stands_alone: bool = False
    may_be_dropped: bool = False
    drops_parent: bool = False
    deny: ir.Deny | None = None
    conditions: tuple[Condition, ...] = ()


def compile_security(view: View, policy: SecurityPolicy) -> Security:
    """Compiles a policy; what cannot be put in force is a condition, and denies what it should guard."""
    spec, conditions = policy.spec, list[Condition]()
    api_keys, hashed_keys = _api_keys(view, policy, conditions)
    deny = _unsupported(spec, conditions)
    jwt, keys_missing = _jwt(view, policy, conditions) if spec.jwt is not None else (None, None)
    return Security(
        key=policy.key,
        created_s=policy.metadata.creation_timestamp.timestamp() if policy.metadata.creation_timestamp else 0.0,
        cors=_cors(spec.cors) if spec.cors is not None else None,
        jwt=jwt,
        api_keys=api_keys,
        hashed_keys=hashed_keys,
        keys=_consumers(policy, spec.consumers) if spec.consumers is not None else None,
        authorization=_authorization(spec.authorization) if spec.authorization is not None else None,
        stands_alone=spec.merge_type == "Replace",
        may_be_dropped=spec.allow_route_override,
        drops_parent=spec.drop_parent_authentication,
        deny=deny or keys_missing,
        conditions=tuple(conditions),
    )


def broken(key: ObjectKey) -> Security:
    """Returns what stands for a policy that never was good: nothing passes."""
    return Security(key, deny=ir.Deny(500, f"{key} is not valid"))


def _unsupported(spec: SecurityPolicySpec, conditions: list[Condition]) -> ir.Deny | None:
    """Names every field without effect; one that would have guarded something denies instead."""
    deny: ir.Deny | None = None
    for path, mark in unsupported_fields(spec):
        field = f"spec.{path}"
        hint = f"; {mark.hint}" if mark.hint else ""
        if field.startswith(_HARMLESS):
            conditions.append(Condition("NotSupported", "True", "UnsupportedField", f"has no effect yet{hint}", field))
            continue
        message = f"is not supported yet, so that requests are answered with 500{hint}"
        conditions.append(false("Accepted", "UnsupportedField", message, field))
        deny = deny or ir.Deny(500, f"{field} is not supported")
    if spec.merge_type in ("StrategicMerge", "JSONMerge"):
        message = "fields are merged whole; what is inside them is not merged yet"
        conditions.append(Condition("NotSupported", "True", "UnsupportedField", message, "spec.mergeType"))
    for index, provider in enumerate(spec.jwt.providers if spec.jwt is not None else ()):
        conditions += _without_effect(provider, f"spec.jwt.providers[{index}]")
    return deny


def _without_effect(provider: JWTProvider, field: str) -> Iterator[Condition]:
    if provider.recompute_route:
        message = "has no effect: filters are chosen with the first route, so a second one would go unguarded"
        yield Condition("NotSupported", "True", "UnsupportedField", message, f"{field}.recomputeRoute")
    if provider.remote_jwks is not None and provider.remote_jwks.backends:
        message = "has no effect yet: the key set is fetched from its URI, by the control plane"
        yield Condition("NotSupported", "True", "UnsupportedField", message, f"{field}.remoteJWKS.backendRefs")


def _cors(cors: CORS) -> ir.Cors:
    return ir.Cors(
        origins=cors.allow_origins,
        methods=cors.allow_methods,
        headers=cors.allow_headers,
        expose=cors.expose_headers,
        max_age_s=int(parse_duration(cors.max_age).total_seconds()) if cors.max_age is not None else None,
        credentials=cors.allow_credentials,
    )


# -- tokens --


def _jwt(view: View, policy: SecurityPolicy, conditions: list[Condition]) -> tuple[ir.Jwt, ir.Deny | None]:
    spec = policy.spec.jwt
    assert spec is not None
    providers: list[ir.JwtProvider] = []
    known = 0
    for index, each in enumerate(spec.providers):
        key_set, fault = _key_set(view, policy, each, f"spec.jwt.providers[{index}]")
        if fault is not None:
            conditions.append(fault)
        known += fault is None
        providers.append(_provider(each, key_set))
    deny = None if known else ir.Deny(503, "no key set of its JWT providers is known")
    return ir.Jwt(tuple(providers), spec.optional), deny


def _provider(provider: JWTProvider, key_set: ir.Jwks) -> ir.JwtProvider:
    extract = provider.extract_from
    return ir.JwtProvider(
        name=provider.name,
        issuer=provider.issuer or "",
        audiences=provider.audiences,
        jwks=key_set,
        claim_headers=tuple(ir.ClaimHeader(each.claim, each.header) for each in provider.claim_to_headers),
        from_headers=tuple(ir.TokenHeader(h.name, h.value_prefix or "") for h in extract.headers) if extract else (),
        from_params=extract.params if extract else (),
        from_cookies=extract.cookies if extract else (),
    )


def _key_set(view: View, policy: SecurityPolicy, provider: JWTProvider, field: str) -> tuple[ir.Jwks, Condition | None]:
    if provider.remote_jwks is not None:
        uri = provider.remote_jwks.uri
        fetched = view.key_set(uri)
        if fetched is not None and jwks.usable(fetched):
            return ir.Jwks(None, uri), None
        what = "has not been fetched yet" if fetched is None else "has no key that can be used"
        message = f"the key set of {uri} {what}; tokens of this provider are refused"
        return ir.Jwks(None, uri), false("ResolvedRefs", "KeySetUnavailable", message, f"{field}.remoteJWKS.uri")
    local = provider.local_jwks
    assert local is not None
    if local.value_ref is None:
        return ir.Jwks(jwks.usable(local.inline or "")), None
    target = ObjectKey(local.value_ref.group, local.value_ref.kind, policy.metadata.namespace, local.value_ref.name)
    text, reason = _of_config_map(view, target)
    if reason is None:
        return ir.Jwks(text), None
    return ir.Jwks(None), false("ResolvedRefs", "InvalidKeySet", reason, f"{field}.localJWKS.valueRef")


def _of_config_map(view: View, target: ObjectKey) -> tuple[str | None, str | None]:
    if (target.group, target.kind) != ("", "ConfigMap"):
        return None, f"{target.kind} is not a kind of key set; expected a ConfigMap"
    found = view.get(target)
    if found is None:
        return None, f"{target} does not exist"
    text = found.data.get("jwks") or next(iter(found.data.values()), "")
    fault = jwks.fault_of(text)
    return (None, f"{target} is not a usable JSON Web Key Set: {fault}") if fault else (jwks.usable(text), None)


# -- API keys --


def _api_keys(
    view: View, policy: SecurityPolicy, conditions: list[Condition]
) -> tuple[ir.ApiKeys | None, ir.KeyPolicy | None]:
    spec = policy.spec.api_key_auth
    if spec is None:
        return None, None
    found, faults = read_keys(view, policy.key, spec.credential_refs, "spec.apiKeyAuth.credentialRefs")
    conditions += faults
    native = ir.ApiKeys(
        keys=found,
        sources=_sources(spec.extract_from),
        forward_client_header=spec.forward_client_id_header,
        sanitize=spec.sanitize,
    )
    return native, _hashed(policy, spec, found) if len(found) > MAX_NATIVE_KEYS else None


def _hashed(policy: SecurityPolicy, spec: APIKeyAuth, found: Iterable[tuple[str, str]]) -> ir.KeyPolicy:
    return ir.KeyPolicy(
        policy=f"{policy.metadata.namespace}/{policy.metadata.name}",
        sources=_sources(spec.extract_from),
        known=tuple((client, hashlib.sha256(key.encode()).hexdigest()) for client, key in found),
        forward_client_header=spec.forward_client_id_header,
        sanitize=spec.sanitize,
    )


def _consumers(policy: SecurityPolicy, spec: Consumers) -> ir.KeyPolicy:
    return ir.KeyPolicy(
        policy=f"{policy.metadata.namespace}/{policy.metadata.name}",
        sources=_sources(spec.extract_from),
        required_scopes=spec.required_scopes,
        metadata_headers=tuple((each.key, each.header) for each in spec.metadata_to_headers),
        forward_client_header=spec.forward_client_id_header,
        sanitize=spec.sanitize,
    )


def _sources(extract_from: Iterable[ExtractFrom]) -> tuple[ir.KeySource, ...]:
    return tuple(ir.KeySource(each.headers, each.params, each.cookies) for each in extract_from)


# -- authorization --


def _authorization(spec: api_authorization.Authorization) -> ir.Authorization:
    return ir.Authorization(tuple(_rule(rule) for rule in spec.rules), spec.default_action == "Allow")


def _rule(rule: api_authorization.AuthorizationRule) -> ir.AuthorizationRule:
    principal, operation = rule.principal, rule.operation
    path = operation.path if operation is not None else None
    made = ir.AuthorizationRule(
        allow=rule.action == "Allow",
        cidrs=principal.client_cidrs,
        headers=tuple((each.name, each.values) for each in principal.headers),
        methods=operation.methods if operation is not None else (),
        path=ir.PathRule(path.type, path.value, path.invert) if path is not None else None,
    )
    if principal.jwt is None:
        return made
    claims = tuple(ir.ClaimRule(c.name, c.values, c.value_type == "StringArray") for c in principal.jwt.claims)
    return replace(made, provider=principal.jwt.provider, claims=claims, scopes=principal.jwt.scopes)
