"""Who a credential proves its bearer to be, and why one is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why a verdict is what it is; also the label of the metrics."""

    OK = "ok"
    ANONYMOUS = "anonymous"
    MISSING = "missing_credentials"
    MALFORMED_TOKEN = "malformed_token"  # noqa: S105
    TOO_LARGE = "credential_too_large"
    ALGORITHM = "algorithm_refused"
    UNKNOWN_SIGNING_KEY = "unknown_signing_key"
    SIGNATURE = "bad_signature"
    EXPIRED = "token_expired"
    NOT_YET = "token_not_yet_valid"
    ISSUER = "issuer_refused"
    AUDIENCE = "audience_refused"
    KEY_UNKNOWN = "key_unknown"
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    KEY_NOT_ADMITTED = "key_not_admitted"
    SCOPE = "insufficient_scope"
    ROLE = "role_missing"
    FORBIDDEN = "forbidden"
    POLICY_UNKNOWN = "policy_unknown"
    STORE_UNAVAILABLE = "store_unavailable"
    INTERNAL = "internal_error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A verdict against a request."""

    reason: Reason
    message: str
    """For the client: says what is wrong with what it sent, nothing about what we hold."""
    scopes: tuple[str, ...] = ()
    """What would have been enough, for `insufficient_scope`."""
    about: str = "jwt"
    """The kind of credential that it speaks of: `jwt` or `api_key`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What one credential proves."""

    kind: str
    """`jwt` or `api_key`."""
    client: str
    """The token's subject, or the key's consumer."""
    expires_at: float | None
    """Seconds since the epoch from which the credential is no longer good."""
    scopes: frozenset[str] = frozenset()
    provider: str = ""
    tenant: str = ""
    key_id: str = ""
    """Of a key in the store, by which it may be revoked."""
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


Outcome = Identity | Refusal
