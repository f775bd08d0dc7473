"""What must hold on a route, read once from `dragoman.authz.v1.Policy` into frozen data that the request path uses."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from ext_authz.jwt_keys import KeySet

DEFAULT_CLOCK_SKEW_S = 60
DEFAULT_JWKS_REFRESH_S = 300
_serials = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Places:
    """The places in a request that may hold a credential, numbered in this order."""

    headers: tuple[str, ...] = ()
    """In lower case."""
    params: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A place, and what stands before the credential in it (in lower case)."""

    place: int
    """Its number among `Policy.places`."""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class JwtProvider:
    """An issuer whose tokens are accepted; see `JwtProvider` in policy.proto for what the fields mean."""

    name: str
    issuer: str
    audiences: frozenset[str]
    keys: KeySet
    jwks_uri: str
    """Where the service itself fetches the keys; empty when they were pushed."""
    jwks_refresh_s: float
    sources: tuple[Source, ...]
    claim_headers: tuple[tuple[str, str], ...]
    """(path of the claim, header)."""
    claim_metadata: tuple[tuple[str, str], ...]
    """(path of the claim, key)."""
    required_scopes: tuple[str, ...]
    required_roles: tuple[str, ...]
    scope_claim: str
    roles_claim: str
    clock_skew_s: int
    algorithms: frozenset[str]
    require_expiration: bool


@dataclass(frozen=True, slots=True)
class InlineKey:
    """A key that came with the policy."""

    id: str
    client: str


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ApiKeyRules:
    """Which API keys are accepted; see `ApiKeyAuth` in policy.proto for what the fields mean."""

    sources: tuple[Source, ...]
    inline: Mapping[bytes, InlineKey]
    """By the SHA-256 of the key."""
    use_store: bool
    consumers: frozenset[str]
    tenant: str
    required_scopes: tuple[str, ...]
    metadata_headers: tuple[tuple[str, str], ...]
    """(key of the metadata, header)."""
    client_header: str


@dataclass(frozen=True, slots=True)
class ClaimMatch:
    """A claim and the values of which it must have one."""

    name: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """Everything that is named must match."""

    name: str
    allow: bool
    provider: str
    claims: tuple[ClaimMatch, ...]
    scopes: tuple[str, ...]
    clients: frozenset[str]


@dataclass(frozen=True, slots=True)
class Authorization:
    """The first rule that matches decides, else the default."""

    rules: tuple[Rule, ...]
    default_allow: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """All that a verdict depends on, beside the credential."""

    id: str
    label: str
    """NAMESPACE/NAME, which stays the same when the content changes."""
    places: Places
    providers: tuple[JwtProvider, ...]
    api_keys: ApiKeyRules | None
    require_all: bool
    allow_anonymous: bool
    authorization: Authorization | None
    remove_headers: tuple[str, ...]
    """What never goes upstream: the credentials' headers where they are sanitised, and what the policy names."""
    identity_headers: frozenset[str]
    """Headers that the policy may set; those that it does not set for a request are removed from it."""
    remove_params: tuple[str, ...]
    remove_cookies: frozenset[str]
    serial: bytes = field(default_factory=lambda: next(_serials).to_bytes(8, "big"))
    """Tells this reading of the policy from every other one: a verdict outlives neither new keys nor a new content."""


@dataclass(frozen=True, slots=True)
class InvalidPolicy:
    """What is wrong with a policy, each fault led by its field."""

    id: str
    faults: tuple[str, ...]
