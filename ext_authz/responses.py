# pyright: standard, reportAttributeAccessIssue=false
"""Writes what Envoy is answered: CheckResponse bytes for a request that passes, and for one that is refused."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse

from ext_authz.credentials import without_cookies
from ext_authz.identity import Identity, Reason, Refusal
from ext_authz.policy import Policy

_UNAUTHENTICATED, _PERMISSION_DENIED, _UNAVAILABLE = 16, 7, 14
_MAX_REQUEST_ID = 128
_OVERWRITE = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
_OUTAGES = frozenset((Reason.POLICY_UNKNOWN, Reason.STORE_UNAVAILABLE, Reason.INTERNAL))
_FORBIDDEN = frozenset((Reason.SCOPE, Reason.ROLE, Reason.FORBIDDEN, Reason.KEY_NOT_ADMITTED))


def allow(policy: Policy, identities: Iterable[Identity]) -> bytes:
    """Returns the answer for a request that passes: identity headers set or removed, credentials out, metadata."""
    response = CheckResponse()
    response.status.code = 0
    given: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    for identity in identities:
        given.update(identity.headers)
        metadata = _merged(metadata, identity)
    passing = response.ok_response
    for name, value in sorted(given.items()):
        passing.headers.append(_header(name, value))
    # Envoy removes after it sets, so nothing that was set may be named here.
    removed = (policy.identity_headers | set(policy.remove_headers)) - given.keys()
    passing.headers_to_remove.extend(sorted(removed))
    passing.query_parameters_to_remove.extend(policy.remove_params)
    response.dynamic_metadata.update(metadata or {"kind": "anonymous"})
    return response.SerializeToString(deterministic=True)


def with_cookies_removed(body: bytes, cookie: str, names: frozenset[str]) -> bytes:
    """Returns an allowing answer that also takes these cookies out of the request's Cookie header."""
    response = CheckResponse.FromString(body)
    rest = without_cookies(cookie, names)
    if rest:
        response.ok_response.headers.append(_header("cookie", rest))
    else:
        response.ok_response.headers_to_remove.append("cookie")
    return response.SerializeToString(deterministic=True)


def refuse(refusal: Refusal, policy: Policy | None, request_id: str) -> bytes:
    """Returns the answer for a request that is refused: 401, 403 or 503 with a JSON body and its challenge."""
    http, grpc, error = _codes(refusal)
    response = CheckResponse()
    response.status.code = grpc
    denied = response.denied_response
    denied.status.code = http
    body = {"error": error, "message": refusal.message}
    if request_id:
        body["request_id"] = request_id[:_MAX_REQUEST_ID]
    denied.body = json.dumps(body) + "\n"
    denied.headers.append(_header("content-type", "application/json"))
    denied.headers.append(_header("cache-control", "no-store"))
    challenge = _challenge(refusal, policy, error)
    if challenge and http != 503:
        denied.headers.append(_header("www-authenticate", challenge))
    return response.SerializeToString(deterministic=True)


def _merged(metadata: dict[str, Any], identity: Identity) -> dict[str, Any]:
    """What the rate limiter's descriptors and the access log can use of an identity (strings, scopes as a list)."""
    more = {"kind": identity.kind, "consumer": identity.client, "tenant": identity.tenant, "key_id": identity.key_id}
    merged = {**metadata, **{name: value for name, value in more.items() if value}}
    merged["scopes"] = sorted(identity.scopes.union(metadata.get("scopes", ())))
    merged["metadata"] = {**metadata.get("metadata", {}), **identity.metadata}
    return merged


def _header(name: str, value: str) -> HeaderValueOption:
    option = HeaderValueOption(append_action=_OVERWRITE)
    option.header.key = name
    option.header.value = value
    return option


def _codes(refusal: Refusal) -> tuple[int, int, str]:
    if refusal.reason in _OUTAGES:
        return 503, _UNAVAILABLE, "unavailable"
    if refusal.reason is Reason.SCOPE:
        return 403, _PERMISSION_DENIED, "insufficient_scope"
    if refusal.reason in _FORBIDDEN:
        return 403, _PERMISSION_DENIED, "forbidden"
    if refusal.reason is Reason.MISSING:
        return 401, _UNAUTHENTICATED, "missing_credentials"
    return 401, _UNAUTHENTICATED, "invalid_token" if refusal.about == "jwt" else "invalid_api_key"


def _challenge(refusal: Refusal, policy: Policy | None, error: str) -> str:
    """The WWW-Authenticate header (RFC 9110 §11.6.1; RFC 6750 §3 for Bearer; `ApiKey` is a scheme of our own)."""
    if refusal.reason is Reason.MISSING:
        # A request without credentials is told no error (RFC 6750 §3.1), only what would be accepted.
        return ", ".join(_schemes(policy))
    if error in ("forbidden", "unavailable"):
        return ""
    parameters: Mapping[str, str] = {"error": error, "error_description": refusal.message}
    if refusal.scopes:
        parameters = {**parameters, "scope": " ".join(refusal.scopes)}
    scheme = "Bearer" if refusal.about == "jwt" else "ApiKey"
    return f"{scheme} " + ", ".join(f'{name}="{_quoted(value)}"' for name, value in parameters.items())


def _schemes(policy: Policy | None) -> list[str]:
    schemes = ["Bearer"] if policy is None or policy.providers else []
    return [*schemes, "ApiKey"] if policy is not None and policy.api_keys is not None else schemes


def _quoted(text: str) -> str:
    kept = "".join(c if 0x20 <= ord(c) < 0x7F else "?" for c in text)
    return kept.replace("\\", "\\\\").replace('"', '\\"')
