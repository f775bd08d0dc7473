"""The policies' part of the IR: what is to be asked of a request before it may pass. See `controlplane.ir`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from controlplane.ir_plans import FIXED_WINDOW, Counting, Plans, Unit

# Headers under this prefix are the gateway's own: whatever a client sends of them is dropped before routes are chosen.
RESERVED_PREFIX = "x-dragoman-"
# It stands in the name of each counter.
_MAX_WORDS = 32


@dataclass(frozen=True, slots=True)
class Cors:
    """An origin is `*`, an exact one, or one with a wildcard in its host (`https://*.example.com`)."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age_s: int | None = None
    credentials: bool = False


# -- tokens --


@dataclass(frozen=True, slots=True)
class ClaimHeader:
    claim: str
    header: str


@dataclass(frozen=True, slots=True)
class Jwks:
    """A key set: canonical text, or the URI that the control plane fetches it from."""

    text: str | None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class TokenHeader:
    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class JwtProvider:
    """Whose tokens are accepted; `claims_read` is whether rules of an authorization are about their claims."""

    name: str
    issuer: str
    audiences: tuple[str, ...]
    jwks: Jwks
    claim_headers: tuple[ClaimHeader, ...] = ()
    from_headers: tuple[TokenHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    claims_read: bool = False

    @property
    def id(self) -> str:
        """A name for the content. Of a remote key set it is the URI that counts: new keys rename nothing."""
        return digest(self)


@dataclass(frozen=True, slots=True)
class Jwt:
    """Any of the providers must accept the token; `optional` also lets requests without one pass."""

    providers: tuple[JwtProvider, ...]
    optional: bool = False

    @property
    def id(self) -> str:
        """A name for the content."""
        return digest(self)


# -- API keys --


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a credential is looked for, in this order within a source: headers, query parameters, cookies."""

    headers: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Inline keys, as (client, key) pairs; `repr` shows none of them."""

    keys: tuple[tuple[str, str], ...] = field(repr=False)
    sources: tuple[KeySource, ...]
    forward_client_header: str | None = None
    sanitize: bool = False


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """API keys that ext_authz checks: those of its store, or known ones as (client, SHA-256 in hexadecimal) pairs.

    `policy` is the NAMESPACE/NAME of the object that it was made from.
    """

    policy: str
    sources: tuple[KeySource, ...]
    known: tuple[tuple[str, str], ...] = ()
    required_scopes: tuple[str, ...] = ()
    metadata_headers: tuple[tuple[str, str], ...] = ()
    forward_client_header: str | None = None
    sanitize: bool = True

    @property
    def id(self) -> str:
        """How routes name it: by content, so that a route never meets another version than the one it was made for."""
        return f"{self.policy}/{digest(self)}"


# -- authorization --


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """A claim (a dotted path) whose value is, or whose array holds, one of `values`."""

    claim: str
    values: tuple[str, ...]
    array: bool = False


@dataclass(frozen=True, slots=True)
class PathRule:
    kind: Literal["Exact", "PathPrefix", "RegularExpression"]
    value: str
    invert: bool = False


@dataclass(frozen=True, slots=True)
class AuthorizationRule:
    """All of what is given must hold: one of the CIDRs, all claims and scopes, all headers, one of the methods.

    `cidrs` are about the client's address as trusted hops tell it. `provider` is the id of the JWT provider whose token
    must have the claims and scopes.
    """

    allow: bool
    cidrs: tuple[str, ...] = ()
    provider: str | None = None
    claims: tuple[ClaimRule, ...] = ()
    scopes: tuple[str, ...] = ()
    headers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    methods: tuple[str, ...] = ()
    path: PathRule | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """Rules are tried in order; the first that matches decides, else `default_allow`."""

    rules: tuple[AuthorizationRule, ...]
    default_allow: bool = False


# -- limits --


@dataclass(frozen=True, slots=True)
class ValueSelector:
    """A header or query parameter: `value` of a Distinct one is empty, each of its values is counted for itself."""

    name: str
    kind: Literal["Exact", "RegularExpression", "Distinct"]
    value: str = ""
    invert: bool = False


@dataclass(frozen=True, slots=True)
class SourceSelector:
    """Clients of a range or, if `invert`, outside of it; counted together or, if `distinct`, each for itself."""

    cidr: str
    distinct: bool = False
    invert: bool = False


@dataclass(frozen=True, slots=True)
class ClaimSelector:
    """A claim (a dotted path) of a verified token: one of `values` or, if `invert`, none of them; or each for itself.

    `provider` is the name of the one whose token it is; any of the route's if None.
    """

    claim: str
    kind: Literal["Exact", "Distinct"]
    values: tuple[str, ...] = ()
    array: bool = False
    invert: bool = False
    provider: str | None = None


MethodSelector = tuple[tuple[str, bool], ...]
"""(method, invert), of which one must match."""


@dataclass(frozen=True, slots=True)
class MetadataSource:
    """A value in the dynamic metadata of a request; colons in `key` lead into nested ones.

    `of_token` is for claims: the key then begins with the name of the JWT provider.
    """

    namespace: str
    key: str
    of_token: bool = False


@dataclass(frozen=True, slots=True)
class LimitRule:
    """`requests` per unit for the requests that all selectors choose; without any, for all requests.

    Of the service's limits, `home` and `name` stand before the counters: the policy that the rule is of, and what of it
    the rule counts. In limits that were merged, `scope`, if any, is whose requests it counts in place of
    `Policies.limit_scope`.
    """

    requests: int
    unit: Unit
    headers: tuple[ValueSelector, ...] = ()
    query: tuple[ValueSelector, ...] = ()
    methods: tuple[MethodSelector, ...] = ()
    paths: tuple[PathRule, ...] = ()
    sources: tuple[SourceSelector, ...] = ()
    claims: tuple[ClaimSelector, ...] = ()
    cost: int | MetadataSource = 1
    response_cost: int | MetadataSource | None = None
    limit_from: MetadataSource | None = None
    headers_shown: bool = True
    shared: bool = False
    counting: Counting = FIXED_WINDOW
    shadow: bool = False
    shielded: bool = False
    home: str = ""
    name: str = ""
    scope: str = ""

    @property
    def counted(self) -> str:
        """A name, such as `day-x-user-1a2b3c4d`, for what the rule counts, and how; not for how much it admits."""
        selectors = (self.headers, self.query, self.methods, self.paths, self.sources, self.claims)
        how = (self.unit, self.counting.algorithm, self.cost, self.response_cost, self.shared)
        names = (each.name for each in (*self.headers, *self.query))
        words = "-".join((self.unit, *names, *(each.claim for each in self.claims))).lower()
        return f"{re.sub('[^a-z0-9]+', '-', words)[:_MAX_WORDS].rstrip('-')}-{digest((selectors, how))[:8]}"

    @property
    def selects(self) -> bool:
        """Says whether the rule is about some requests only."""
        return bool(self.headers or self.query or self.methods or self.paths or self.sources or self.claims)

    @property
    def told_apart(self) -> bool:
        """Says whether Envoy's bucket for all other requests, which has no costs and no shadow, is not for the rule."""
        return self.selects or self.shadow or self.cost != 1

    @property
    def read_providers(self) -> frozenset[str | None]:
        """The names of the JWT providers whose tokens' claims it reads; None for any."""
        of_claims = {each.provider for each in self.claims}
        sources = (self.cost, self.response_cost, self.limit_from)
        return frozenset(
            of_claims
            | {each.key.partition(":")[0] for each in sources if isinstance(each, MetadataSource) and each.of_token}
        )


@dataclass(frozen=True, slots=True)
class LocalLimit:
    """Enforced by each Envoy on its own."""

    rules: tuple[LimitRule, ...]


@dataclass(frozen=True, slots=True)
class GlobalLimit:
    """Enforced by the rate limit service. `policy` is the NAMESPACE/NAME of the object that it was made from."""

    policy: str
    rules: tuple[LimitRule, ...]
    fail_open: bool = True
    plans: Plans | None = None

    @property
    def domain(self) -> str:
        """How routes name it: by content, so that it can outlive them; but not by the numbers that Plans say."""
        if self.plans is None:
            return f"{self.policy}/{digest(self)}"
        plans = Plans(self.plans.identity, home=self.plans.home)
        return f"{self.policy}/{digest((replace(self, plans=plans), self.plans.asked))}"

    @property
    def homes(self) -> tuple[str, ...]:
        """What stands before the counters: the policies that it was made from."""
        of_plans = (self.plans.home.rpartition("/")[0],) if self.plans is not None else ()
        return tuple(dict.fromkeys((*(rule.home for rule in self.rules), *of_plans)))

    def countings(self) -> Iterator[Counting]:
        """Yields how each limit is counted."""
        yield from (rule.counting for rule in self.rules)
        if self.plans is not None:
            yield from (each.counting for each in self.plans.everything())

    @property
    def holds(self) -> bool:
        """Says whether some requests may be held back until it is their turn."""
        return any(each.delay_ms for each in self.countings())

    @property
    def has_quotas(self) -> bool:
        """Says whether Envoys enforce their shares of some of it."""
        return any(rule.counting.quota for rule in self.rules)

    @property
    def counts_until_done(self) -> bool:
        """Says whether some of it counts requests until they end."""
        return any(each.until_done for each in self.countings())

    @property
    def counts_apart(self) -> bool:
        """Says whether some of it counts for each route, or what `Policies.limit_scope` names, apart."""
        return not all(rule.shared for rule in self.rules)


# -- all together --


@dataclass(frozen=True, slots=True)
class Deny:
    """Nothing passes: what should guard the route cannot be put in force."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Policies:
    """What is in force on a route after the merge of its own policies with those of its listener and Gateway.

    `limit_scope` names whose requests a limit that is not shared counts together; empty where there is no such limit.
    """

    cors: Cors | None = None
    jwt: Jwt | None = None
    api_keys: ApiKeys | None = None
    keys: KeyPolicy | None = None
    authorization: Authorization | None = None
    own_authorization: Authorization | None = None  # a route's, where its Gateway's stays in force: both must admit
    local_limit: LocalLimit | None = None
    global_limit: GlobalLimit | None = None
    limit_scope: str = ""
    deny: Deny | None = None
    origins: tuple[str, ...] = ()

    @property
    def tokens(self) -> Mapping[str, str]:
        """The ids, by name, of the JWT providers whose tokens requests may have."""
        return {each.name: each.id for each in self.jwt.providers} if self.jwt is not None else {}

    @property
    def identity_headers(self) -> frozenset[str]:
        """The request headers that these policies set, in lower case; no client may set them."""
        found: set[str] = set()
        if self.jwt is not None:
            found.update(each.header for provider in self.jwt.providers for each in provider.claim_headers)
        if self.api_keys is not None:
            found.add(self.api_keys.forward_client_header or "")
        if self.keys is not None:
            found.update(header for _, header in self.keys.metadata_headers)
            found.add(self.keys.forward_client_header or "")
        if self.global_limit is not None and self.global_limit.plans is not None:
            found.update(self.global_limit.plans.identity.headers)
        return frozenset(name.lower() for name in found if name)


def digest(value: object) -> str:
    """Returns a short name for the content of a frozen value."""
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()
