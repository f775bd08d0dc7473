"""Checks API keys: those that came with a policy, and those of the store (`dgm_ID_SECRET`)."""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass

from ext_authz.claims import sendable
from ext_authz.identity import Identity, Outcome, Reason, Refusal
from ext_authz.policy import ApiKeyRules
from ext_authz.stores.records import KeyRecord

PREFIX = "dgm"
ID_LENGTH = 12
SECRET_LENGTH = 40
MAX_KEY_BYTES = 1024
_ALPHABET = string.digits + string.ascii_letters
_FORM = re.compile(rf"{PREFIX}_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH}}}")
# One sentence for every key that is not good: the client learns nothing of which keys there are or were.
_BAD = "The API key is not valid"


@dataclass(frozen=True, slots=True)
class Presented:
    """A key that a request carries: what it hashes to, and the id by which the store may know it."""

    sha256: bytes
    key_id: str | None


def generate() -> tuple[str, Presented]:
    """Returns a new key (238 random bits in the secret) and what identifies it."""
    key_id, secret = (_random(length) for length in (ID_LENGTH, SECRET_LENGTH))
    key = f"{PREFIX}_{key_id}_{secret}"
    return key, Presented(hashlib.sha256(key.encode()).digest(), key_id)


def read(value: str) -> Presented | None:
    """Reads a key as a client sent it, `Bearer ` before it or not; None for what can be none."""
    if value[:7].lower() == "bearer ":
        value = value[7:].strip()
    if not value or len(value) > MAX_KEY_BYTES:
        return None
    form = _FORM.fullmatch(value)
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    return Presented(digest, form.group(1) if form else None)


def check_inline(rules: ApiKeyRules, key: Presented) -> Identity | None:
    """Returns whose key it is, if it came with the policy; such a key has no scopes and does not expire."""
    known = rules.inline.get(key.sha256)
    if known is None:
        return None
    headers = _client_header(rules, known.client)
    return Identity(kind="api_key", client=known.client, expires_at=None, headers=headers)


def check_record(rules: ApiKeyRules, key: Presented, record: KeyRecord | None, now: float) -> Outcome:
    """Returns whose key it is by what the store has under its id, or why it is refused."""
    if record is None or not hmac.compare_digest(record.sha256, key.sha256):
        return bad(Reason.KEY_UNKNOWN)
    if record.revoked_at is not None:
        return bad(Reason.KEY_REVOKED)
    if record.expires_at is not None and now >= record.expires_at:
        return bad(Reason.KEY_EXPIRED)
    if rules.tenant and record.tenant != rules.tenant:
        return _not_admitted()
    if rules.consumers and record.consumer not in rules.consumers:
        return _not_admitted()
    if not set(record.scopes).issuperset(rules.required_scopes):
        return Refusal(Reason.SCOPE, "The API key lacks a required scope", rules.required_scopes, "api_key")
    return Identity(
        kind="api_key",
        client=record.consumer,
        expires_at=record.expires_at,
        scopes=frozenset(record.scopes),
        tenant=record.tenant,
        key_id=record.id,
        headers={**_metadata_headers(rules, record.metadata), **_client_header(rules, record.consumer)},
        metadata=record.metadata,
    )


def bad(reason: Reason) -> Refusal:
    """Returns the refusal of a key that is not good."""
    return Refusal(reason, _BAD, about="api_key")


def _not_admitted() -> Refusal:
    return Refusal(Reason.KEY_NOT_ADMITTED, "This client may not call this", about="api_key")


def _metadata_headers(rules: ApiKeyRules, metadata: Mapping[str, str]) -> dict[str, str]:
    pairs = ((header, metadata.get(key)) for key, header in rules.metadata_headers)
    return {header: value for header, value in pairs if value is not None and sendable(value)}


def _client_header(rules: ApiKeyRules, client: str) -> dict[str, str]:
    return {rules.client_header: client} if rules.client_header and sendable(client) else {}


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
