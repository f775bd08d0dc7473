"""The configuration file of ext_authz running alone: what may stand in it, and the policy message that it means."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb

Action = Literal["Allow", "Deny"]
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)


class HeaderSource(_Model):
    name: str
    value_prefix: str = ""


class ExtractFrom(_Model):
    """Where a credential may be: in headers, then in query parameters, then in cookies."""

    headers: list[HeaderSource] = Field(default_factory=list[HeaderSource])
    params: list[str] = Field(default_factory=list[str])
    cookies: list[str] = Field(default_factory=list[str])

    def message(self) -> pb.CredentialSources:
        headers = [pb.CredentialSources.Header(name=each.name, value_prefix=each.value_prefix) for each in self.headers]
        return pb.CredentialSources(headers=headers, params=self.params, cookies=self.cookies)


class Jwks(_Model):
    """Exactly one of: the document itself, a file beside the configuration, an address to fetch it from."""

    inline: str | None = None
    file: str | None = None
    uri: str | None = None
    refresh_seconds: int = Field(default=300, ge=1, le=86_400)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(each is not None for each in (self.inline, self.file, self.uri)) != 1:
            raise ValueError("give exactly one of inline, file and uri")
        return self


class ClaimToHeader(_Model):
    claim: str
    header: str


class ClaimToMetadata(_Model):
    claim: str
    key: str


class Provider(_Model):
    """An issuer whose tokens are accepted."""

    name: str
    issuer: str = ""
    audiences: list[str] = Field(default_factory=list[str])
    jwks: Jwks
    extract_from: ExtractFrom | None = None
    claim_to_headers: list[ClaimToHeader] = Field(default_factory=list[ClaimToHeader])
    claim_to_metadata: list[ClaimToMetadata] = Field(default_factory=list[ClaimToMetadata])
    required_scopes: list[str] = Field(default_factory=list[str])
    required_roles: list[str] = Field(default_factory=list[str])
    scope_claim: str = ""
    roles_claim: str = ""
    clock_skew_seconds: int = Field(default=60, ge=0)
    algorithms: list[str] = Field(default_factory=list[str])
    allow_no_expiration: bool = False
    sanitize: bool = False

    def message(self, inline_jwks: str | None) -> pb.JwtProvider:
        """`inline_jwks` is the document that `jwks` holds or names; None where it is to be fetched."""
        made = pb.JwtProvider(
            name=self.name,
            issuer=self.issuer,
            audiences=self.audiences,
            claim_to_headers=[pb.ClaimToHeader(claim=e.claim, header=e.header) for e in self.claim_to_headers],
            claim_to_metadata=[pb.ClaimToMetadata(claim=e.claim, key=e.key) for e in self.claim_to_metadata],
            required_scopes=self.required_scopes,
            required_roles=self.required_roles,
            scope_claim=self.scope_claim,
            roles_claim=self.roles_claim,
            clock_skew_seconds=self.clock_skew_seconds,
            algorithms=self.algorithms,
            allow_no_expiration=self.allow_no_expiration,
            sanitize=self.sanitize,
        )
        if inline_jwks is not None:
            made.inline_jwks = inline_jwks
        else:
            made.remote_jwks.uri = self.jwks.uri or ""
            made.remote_jwks.refresh_seconds = self.jwks.refresh_seconds
        if self.extract_from is not None:
            made.extract_from.CopyFrom(self.extract_from.message())
        return made


class Jwt(_Model):
    providers: list[Provider] = Field(min_length=1)


class InlineKey(_Model):
    id: str
    sha256: str
    """64 hexadecimal digits."""
    client: str

    @field_validator("sha256")
    @classmethod
    def _is_sha256(cls, text: str) -> str:
        if not _SHA256.fullmatch(text):
            raise ValueError("must be 64 hexadecimal digits, the SHA-256 of the key")
        return text


class MetadataToHeader(_Model):
    key: str
    header: str


class ApiKeys(_Model):
    """Which API keys are accepted: those listed, and with `store` those of `dragoman key`."""

    extract_from: ExtractFrom | None = None
    keys: list[InlineKey] = Field(default_factory=list[InlineKey])
    store: bool = False
    consumers: list[str] = Field(default_factory=list[str])
    tenant: str = ""
    required_scopes: list[str] = Field(default_factory=list[str])
    metadata_to_headers: list[MetadataToHeader] = Field(default_factory=list[MetadataToHeader])
    forward_client_id_header: str = ""
    sanitize: bool = False

    def message(self) -> pb.ApiKeyAuth:
        """Returns the message, but for the keys."""
        made = pb.ApiKeyAuth(
            use_store=self.store,
            consumers=self.consumers,
            tenant=self.tenant,
            required_scopes=self.required_scopes,
            metadata_to_headers=[
                pb.ApiKeyAuth.MetadataToHeader(key=each.key, header=each.header) for each in self.metadata_to_headers
            ],
            forward_client_id_header=self.forward_client_id_header,
            sanitize=self.sanitize,
        )
        if self.extract_from is not None:
            made.extract_from.CopyFrom(self.extract_from.message())
        return made


class Claim(_Model):
    name: str
    values: list[str] = Field(min_length=1)


class Rule(_Model):
    """Everything that it names must match."""

    name: str = ""
    action: Action
    provider: str = ""
    claims: list[Claim] = Field(default_factory=list[Claim])
    scopes: list[str] = Field(default_factory=list[str])
    clients: list[str] = Field(default_factory=list[str])

    def message(self) -> pb.Authorization.Rule:
        return pb.Authorization.Rule(
            name=self.name,
            action=_action(self.action),
            provider=self.provider,
            claims=[pb.Authorization.ClaimMatch(name=claim.name, values=claim.values) for claim in self.claims],
            scopes=self.scopes,
            clients=self.clients,
        )


class Authorization(_Model):
    """The first rule that matches decides."""

    default_action: Action = "Deny"
    rules: list[Rule] = Field(default_factory=list[Rule])

    def message(self) -> pb.Authorization:
        rules = [rule.message() for rule in self.rules]
        return pb.Authorization(rules=rules, default_action=_action(self.default_action))


class PolicyEntry(_Model):
    """One policy; a route names it by `id` in the ext_authz context extension `policy`."""

    id: str = Field(min_length=1)
    jwt: Jwt | None = None
    api_keys: ApiKeys | None = None
    combine: Literal["Any", "All"] = "Any"
    allow_anonymous: bool = False
    remove_headers: list[str] = Field(default_factory=list[str])
    authorization: Authorization | None = None

    def message(self, text_of: Callable[[str], str]) -> pb.Policy:
        """Returns the message; `text_of` reads JWKS files, and what it raises is raised."""
        made = pb.Policy(
            id=self.id,
            combination=pb.Policy.ALL_OF if self.combine == "All" else pb.Policy.ANY_OF,
            allow_anonymous=self.allow_anonymous,
            remove_headers=self.remove_headers,
        )
        for provider in self.jwt.providers if self.jwt is not None else ():
            jwks = provider.jwks
            document = jwks.inline if jwks.file is None else text_of(jwks.file)
            made.jwt_providers.append(provider.message(document))
        if self.api_keys is not None:
            made.api_keys.CopyFrom(self.api_keys.message())
            # One by one: there may be very many.
            for key in self.api_keys.keys:
                made.api_keys.inline_keys.add(id=key.id, sha256=bytes.fromhex(key.sha256), client=key.client)
        if self.authorization is not None:
            made.authorization.CopyFrom(self.authorization.message())
        return made


def _action(action: Action) -> pb.Authorization.Action:
    return pb.Authorization.ALLOW if action == "Allow" else pb.Authorization.DENY
