"""Reads a `dragoman.authz.v1.Policy` message into the data that the request path uses, naming every fault."""

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb
from ext_authz.jwt_keys import ALGORITHMS, KeySet, KeySets
from ext_authz.policy import (
    DEFAULT_CLOCK_SKEW_S,
    DEFAULT_JWKS_REFRESH_S,
    ApiKeyRules,
    Authorization,
    ClaimMatch,
    InlineKey,
    InvalidPolicy,
    JwtProvider,
    Places,
    Policy,
    Rule,
    Source,
)

MAX_ID = 512
MAX_PROVIDERS = 32
MAX_SKEW_S = 3600
MAX_PLACES = 64
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
# Headers that frame or route a request: an identity is never written into one.
_RESERVED = frozenset(("host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "cookie"))
_DEFAULT_JWT_SOURCES = pb.CredentialSources(
    headers=[pb.CredentialSources.Header(name="authorization", value_prefix="Bearer ")], params=["access_token"]
)
_DEFAULT_KEY_SOURCES = pb.CredentialSources(headers=[pb.CredentialSources.Header(name="x-api-key")])

JwksOf = Callable[[str], str | None]
"""Gives the JWKS that was fetched from a URI, None while there is none."""


def read_policy(
    message: pb.Policy, *, jwks_of: JwksOf = lambda uri: None, key_sets: KeySets | None = None
) -> Policy | InvalidPolicy:
    """Returns the policy, or all that is wrong with the message."""
    reader = _Reader(jwks_of, key_sets or KeySets())
    policy = reader.policy(message)
    return InvalidPolicy(message.id, tuple(reader.faults)) if reader.faults else policy


class _Reader:
    def __init__(self, jwks_of: JwksOf, key_sets: KeySets) -> None:
        self.faults: list[str] = []
        self._jwks_of = jwks_of
        self._key_sets = key_sets
        self._numbers: dict[tuple[str, str], int] = {}

    def policy(self, message: pb.Policy) -> Policy:
        self._expect(0 < len(message.id) <= MAX_ID, "id", f"must have 1 to {MAX_ID} characters")
        places = self._number_places(message)
        self._expect(len(message.jwt_providers) <= MAX_PROVIDERS, "jwt_providers", f"more than {MAX_PROVIDERS}")
        providers = tuple(self._provider(n, item) for n, item in enumerate(message.jwt_providers))
        names = [provider.name for provider in providers]
        self._expect(len(set(names)) == len(names), "jwt_providers", "two have the same name")
        api_keys = self._api_keys(message.api_keys) if message.HasField("api_keys") else None
        self._expect(bool(providers) or api_keys is not None, "", "names neither jwt_providers nor api_keys")
        require_all = message.combination == pb.Policy.ALL_OF
        remove = [self._header(name, "remove_headers") for name in message.remove_headers]
        cleaned = _places(*_sources_to_sanitise(message))
        return Policy(
            id=message.id,
            label=message.id.rpartition("/")[0] if message.id.count("/") == 2 else message.id,
            places=places,
            providers=providers,
            api_keys=api_keys,
            require_all=require_all and bool(providers) and api_keys is not None,
            allow_anonymous=message.allow_anonymous,
            authorization=self._authorization(message, names) if message.HasField("authorization") else None,
            remove_headers=tuple(dict.fromkeys([*remove, *cleaned.headers])),
            identity_headers=_identity_headers(providers, api_keys),
            remove_params=cleaned.params,
            remove_cookies=frozenset(cleaned.cookies),
        )

    def _provider(self, number: int, message: pb.JwtProvider) -> JwtProvider:
        at = f"jwt_providers[{number}]"
        self._expect(bool(message.name), f"{at}.name", "is missing")
        skew = message.clock_skew_seconds if message.HasField("clock_skew_seconds") else DEFAULT_CLOCK_SKEW_S
        self._expect(skew <= MAX_SKEW_S, f"{at}.clock_skew_seconds", f"more than {MAX_SKEW_S}")
        for name in message.algorithms:
            self._expect(
                name in ALGORITHMS, f"{at}.algorithms", f"{name!r} is not supported; have {', '.join(ALGORITHMS)}"
            )
        return JwtProvider(
            name=message.name,
            issuer=message.issuer,
            audiences=frozenset(message.audiences),
            keys=self._keys(at, message),
            jwks_uri=message.remote_jwks.uri,
            jwks_refresh_s=message.remote_jwks.refresh_seconds or DEFAULT_JWKS_REFRESH_S,
            sources=self._sources(_jwt_sources(message)),
            claim_headers=tuple(
                (item.claim, self._identity_header(item.header, f"{at}.claim_to_headers"))
                for item in message.claim_to_headers
            ),
            claim_metadata=tuple((item.claim, item.key) for item in message.claim_to_metadata),
            required_scopes=tuple(message.required_scopes),
            required_roles=tuple(message.required_roles),
            scope_claim=message.scope_claim,
            roles_claim=message.roles_claim or "roles",
            clock_skew_s=skew,
            algorithms=frozenset(message.algorithms or ALGORITHMS),
            require_expiration=not message.allow_no_expiration,
        )

    def _keys(self, at: str, message: pb.JwtProvider) -> KeySet:
        kind = message.WhichOneof("jwks")
        self._expect(kind is not None, at, "has neither inline_jwks nor remote_jwks")
        document: str | None = message.inline_jwks
        if kind != "inline_jwks":
            if kind == "remote_jwks":
                uri = urlsplit(message.remote_jwks.uri)
                fit = uri.scheme in ("https", "http") and bool(uri.hostname)
                self._expect(fit, f"{at}.remote_jwks.uri", "is no https:// or http:// address")
            document = self._jwks_of(message.remote_jwks.uri)
        if not document:
            self._expect(kind != "inline_jwks", f"{at}.inline_jwks", "is empty")
            return KeySet()
        try:
            return self._key_sets.parse(document)
        except ValueError as error:
            self._expect(False, f"{at}.{kind}", str(error))
            return KeySet()

    def _api_keys(self, message: pb.ApiKeyAuth) -> ApiKeyRules:
        at = "api_keys"
        for number, key in enumerate(message.inline_keys):
            if len(key.sha256) != 32:
                self._expect(False, f"{at}.inline_keys[{number}].sha256", "is not 32 bytes")
        self._expect(message.use_store or bool(message.inline_keys), at, "has neither inline_keys nor use_store")
        client_header = message.forward_client_id_header
        return ApiKeyRules(
            sources=self._sources(_key_sources(message)),
            inline={key.sha256: InlineKey(key.id, key.client) for key in message.inline_keys},
            use_store=message.use_store,
            consumers=frozenset(message.consumers),
            tenant=message.tenant,
            required_scopes=tuple(message.required_scopes),
            metadata_headers=tuple(
                (item.key, self._identity_header(item.header, f"{at}.metadata_to_headers"))
                for item in message.metadata_to_headers
            ),
            client_header=self._identity_header(client_header, f"{at}.forward_client_id_header")
            if client_header
            else "",
        )

    def _number_places(self, message: pb.Policy) -> Places:
        """Numbers what the sources name, headers first, and looks at their names."""
        sources = [_jwt_sources(provider) for provider in message.jwt_providers]
        if message.HasField("api_keys"):
            sources.append(_key_sources(message.api_keys))
        for source in sources:
            for header in source.headers:
                self._header(header.name, "extract_from.headers")
            self._expect(all((*source.params, *source.cookies)), "extract_from", "names an empty parameter or cookie")
        places = _places(*sources)
        named = (("header", places.headers), ("param", places.params), ("cookie", places.cookies))
        every = [(kind, name) for kind, names in named for name in names]
        self._expect(len(every) <= MAX_PLACES, "extract_from", f"more than {MAX_PLACES} places")
        self._numbers = {place: number for number, place in enumerate(every)}
        return places

    def _sources(self, message: pb.CredentialSources) -> tuple[Source, ...]:
        return (
            *(Source(self._numbers["header", e.name.lower()], e.value_prefix.lower()) for e in message.headers),
            *(Source(self._numbers["param", name]) for name in message.params),
            *(Source(self._numbers["cookie", name]) for name in message.cookies),
        )

    def _authorization(self, message: pb.Policy, providers: Sequence[str]) -> Authorization:
        rules = message.authorization.rules
        for number, rule in enumerate(rules):
            at = f"authorization.rules[{number}]"
            self._expect(
                rule.provider in ("", *providers), f"{at}.provider", f"no provider is called {rule.provider!r}"
            )
            for match in rule.claims:
                self._expect(bool(match.name and match.values), f"{at}.claims", "a claim needs a name and values")
        allow = pb.Authorization.ALLOW
        return Authorization(
            tuple(
                Rule(
                    name=rule.name,
                    allow=rule.action == allow,
                    provider=rule.provider,
                    claims=tuple(ClaimMatch(match.name, frozenset(match.values)) for match in rule.claims),
                    scopes=tuple(rule.scopes),
                    clients=frozenset(rule.clients),
                )
                for rule in rules
            ),
            message.authorization.default_action == allow,
        )

    def _header(self, name: str, at: str) -> str:
        self._expect(_HEADER_NAME.fullmatch(name) is not None, at, f"{name!r} is no header name")
        return name.lower()

    def _identity_header(self, name: str, at: str) -> str:
        self._expect(name.lower() not in _RESERVED, at, f"the header {name!r} may not be set")
        return self._header(name, at)

    def _expect(self, holds: bool, at: str, fault: str) -> None:
        if not holds:
            self.faults.append(f"{at}: {fault}" if at else fault)


def _jwt_sources(message: pb.JwtProvider) -> pb.CredentialSources:
    return message.extract_from if _names_any(message.extract_from) else _DEFAULT_JWT_SOURCES


def _key_sources(message: pb.ApiKeyAuth) -> pb.CredentialSources:
    return message.extract_from if _names_any(message.extract_from) else _DEFAULT_KEY_SOURCES


def _names_any(message: pb.CredentialSources) -> bool:
    return bool(message.headers or message.params or message.cookies)


def _sources_to_sanitise(message: pb.Policy) -> list[pb.CredentialSources]:
    """Where the credentials are that must not go upstream: every such place is cleaned, whichever held one."""
    sources = [_jwt_sources(provider) for provider in message.jwt_providers if provider.sanitize]
    return [*sources, _key_sources(message.api_keys)] if message.api_keys.sanitize else sources


def _places(*sources: pb.CredentialSources) -> Places:
    return Places(
        headers=tuple(dict.fromkeys(header.name.lower() for source in sources for header in source.headers)),
        params=tuple(dict.fromkeys(name for source in sources for name in source.params)),
        cookies=tuple(dict.fromkeys(name for source in sources for name in source.cookies)),
    )


def _identity_headers(providers: Iterable[JwtProvider], api_keys: ApiKeyRules | None) -> frozenset[str]:
    names = {header for provider in providers for _, header in provider.claim_headers}
    if api_keys is not None:
        names.update(header for _, header in api_keys.metadata_headers)
        names.update((api_keys.client_header,) if api_keys.client_header else ())
    return frozenset(names)
