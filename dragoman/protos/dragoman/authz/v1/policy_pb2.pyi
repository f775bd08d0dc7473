from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Policy(_message.Message):
    __slots__ = ("id", "jwt_providers", "api_keys", "combination", "allow_anonymous", "remove_headers", "authorization")
    class Combination(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ANY_OF: _ClassVar[Policy.Combination]
        ALL_OF: _ClassVar[Policy.Combination]
    ANY_OF: Policy.Combination
    ALL_OF: Policy.Combination
    ID_FIELD_NUMBER: _ClassVar[int]
    JWT_PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    API_KEYS_FIELD_NUMBER: _ClassVar[int]
    COMBINATION_FIELD_NUMBER: _ClassVar[int]
    ALLOW_ANONYMOUS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_HEADERS_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    id: str
    jwt_providers: _containers.RepeatedCompositeFieldContainer[JwtProvider]
    api_keys: ApiKeyAuth
    combination: Policy.Combination
    allow_anonymous: bool
    remove_headers: _containers.RepeatedScalarFieldContainer[str]
    authorization: Authorization
    def __init__(self, id: _Optional[str] = ..., jwt_providers: _Optional[_Iterable[_Union[JwtProvider, _Mapping]]] = ..., api_keys: _Optional[_Union[ApiKeyAuth, _Mapping]] = ..., combination: _Optional[_Union[Policy.Combination, str]] = ..., allow_anonymous: _Optional[bool] = ..., remove_headers: _Optional[_Iterable[str]] = ..., authorization: _Optional[_Union[Authorization, _Mapping]] = ...) -> None: ...

class JwtProvider(_message.Message):
    __slots__ = ("name", "issuer", "audiences", "inline_jwks", "remote_jwks", "extract_from", "claim_to_headers", "claim_to_metadata", "required_scopes", "required_roles", "scope_claim", "roles_claim", "clock_skew_seconds", "algorithms", "allow_no_expiration", "sanitize")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    INLINE_JWKS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_JWKS_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_FROM_FIELD_NUMBER: _ClassVar[int]
    CLAIM_TO_HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLAIM_TO_METADATA_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_SCOPES_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_ROLES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_CLAIM_FIELD_NUMBER: _ClassVar[int]
    ROLES_CLAIM_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SKEW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALGORITHMS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_NO_EXPIRATION_FIELD_NUMBER: _ClassVar[int]
    SANITIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    issuer: str
    audiences: _containers.RepeatedScalarFieldContainer[str]
    inline_jwks: str
    remote_jwks: RemoteJwks
    extract_from: CredentialSources
    claim_to_headers: _containers.RepeatedCompositeFieldContainer[ClaimToHeader]
    claim_to_metadata: _containers.RepeatedCompositeFieldContainer[ClaimToMetadata]
    required_scopes: _containers.RepeatedScalarFieldContainer[str]
    required_roles: _containers.RepeatedScalarFieldContainer[str]
    scope_claim: str
    roles_claim: str
    clock_skew_seconds: int
    algorithms: _containers.RepeatedScalarFieldContainer[str]
    allow_no_expiration: bool
    sanitize: bool
    def __init__(self, name: _Optional[str] = ..., issuer: _Optional[str] = ..., audiences: _Optional[_Iterable[str]] = ..., inline_jwks: _Optional[str] = ..., remote_jwks: _Optional[_Union[RemoteJwks, _Mapping]] = ..., extract_from: _Optional[_Union[CredentialSources, _Mapping]] = ..., claim_to_headers: _Optional[_Iterable[_Union[ClaimToHeader, _Mapping]]] = ..., claim_to_metadata: _Optional[_Iterable[_Union[ClaimToMetadata, _Mapping]]] = ..., required_scopes: _Optional[_Iterable[str]] = ..., required_roles: _Optional[_Iterable[str]] = ..., scope_claim: _Optional[str] = ..., roles_claim: _Optional[str] = ..., clock_skew_seconds: _Optional[int] = ..., algorithms: _Optional[_Iterable[str]] = ..., allow_no_expiration: _Optional[bool] = ..., sanitize: _Optional[bool] = ...) -> None: ...

class RemoteJwks(_message.Message):
    __slots__ = ("uri", "refresh_seconds")
    URI_FIELD_NUMBER: _ClassVar[int]
    REFRESH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    uri: str
    refresh_seconds: int
    def __init__(self, uri: _Optional[str] = ..., refresh_seconds: _Optional[int] = ...) -> None: ...

class CredentialSources(_message.Message):
    __slots__ = ("headers", "params", "cookies")
    class Header(_message.Message):
        __slots__ = ("name", "value_prefix")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_PREFIX_FIELD_NUMBER: _ClassVar[int]
        name: str
        value_prefix: str
        def __init__(self, name: _Optional[str] = ..., value_prefix: _Optional[str] = ...) -> None: ...
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    COOKIES_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.RepeatedCompositeFieldContainer[CredentialSources.Header]
    params: _containers.RepeatedScalarFieldContainer[str]
    cookies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, headers: _Optional[_Iterable[_Union[CredentialSources.Header, _Mapping]]] = ..., params: _Optional[_Iterable[str]] = ..., cookies: _Optional[_Iterable[str]] = ...) -> None: ...

class ClaimToHeader(_message.Message):
    __slots__ = ("claim", "header")
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    claim: str
    header: str
    def __init__(self, claim: _Optional[str] = ..., header: _Optional[str] = ...) -> None: ...

class ClaimToMetadata(_message.Message):
    __slots__ = ("claim", "key")
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    claim: str
    key: str
    def __init__(self, claim: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class ApiKeyAuth(_message.Message):
    __slots__ = ("extract_from", "inline_keys", "use_store", "consumers", "tenant", "required_scopes", "metadata_to_headers", "forward_client_id_header", "sanitize")
    class InlineKey(_message.Message):
        __slots__ = ("id", "sha256", "client")
        ID_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        CLIENT_FIELD_NUMBER: _ClassVar[int]
        id: str
        sha256: bytes
        client: str
        def __init__(self, id: _Optional[str] = ..., sha256: _Optional[bytes] = ..., client: _Optional[str] = ...) -> None: ...
    class MetadataToHeader(_message.Message):
        __slots__ = ("key", "header")
        KEY_FIELD_NUMBER: _ClassVar[int]
        HEADER_FIELD_NUMBER: _ClassVar[int]
        key: str
        header: str
        def __init__(self, key: _Optional[str] = ..., header: _Optional[str] = ...) -> None: ...
    EXTRACT_FROM_FIELD_NUMBER: _ClassVar[int]
    INLINE_KEYS_FIELD_NUMBER: _ClassVar[int]
    USE_STORE_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_SCOPES_FIELD_NUMBER: _ClassVar[int]
    METADATA_TO_HEADERS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_CLIENT_ID_HEADER_FIELD_NUMBER: _ClassVar[int]
    SANITIZE_FIELD_NUMBER: _ClassVar[int]
    extract_from: CredentialSources
    inline_keys: _containers.RepeatedCompositeFieldContainer[ApiKeyAuth.InlineKey]
    use_store: bool
    consumers: _containers.RepeatedScalarFieldContainer[str]
    tenant: str
    required_scopes: _containers.RepeatedScalarFieldContainer[str]
    metadata_to_headers: _containers.RepeatedCompositeFieldContainer[ApiKeyAuth.MetadataToHeader]
    forward_client_id_header: str
    sanitize: bool
    def __init__(self, extract_from: _Optional[_Union[CredentialSources, _Mapping]] = ..., inline_keys: _Optional[_Iterable[_Union[ApiKeyAuth.InlineKey, _Mapping]]] = ..., use_store: _Optional[bool] = ..., consumers: _Optional[_Iterable[str]] = ..., tenant: _Optional[str] = ..., required_scopes: _Optional[_Iterable[str]] = ..., metadata_to_headers: _Optional[_Iterable[_Union[ApiKeyAuth.MetadataToHeader, _Mapping]]] = ..., forward_client_id_header: _Optional[str] = ..., sanitize: _Optional[bool] = ...) -> None: ...

class Authorization(_message.Message):
    __slots__ = ("rules", "default_action")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DENY: _ClassVar[Authorization.Action]
        ALLOW: _ClassVar[Authorization.Action]
    DENY: Authorization.Action
    ALLOW: Authorization.Action
    class ClaimMatch(_message.Message):
        __slots__ = ("name", "values")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUES_FIELD_NUMBER: _ClassVar[int]
        name: str
        values: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...
    class Rule(_message.Message):
        __slots__ = ("name", "action", "provider", "claims", "scopes", "clients")
        NAME_FIELD_NUMBER: _ClassVar[int]
        ACTION_FIELD_NUMBER: _ClassVar[int]
        PROVIDER_FIELD_NUMBER: _ClassVar[int]
        CLAIMS_FIELD_NUMBER: _ClassVar[int]
        SCOPES_FIELD_NUMBER: _ClassVar[int]
        CLIENTS_FIELD_NUMBER: _ClassVar[int]
        name: str
        action: Authorization.Action
        provider: str
        claims: _containers.RepeatedCompositeFieldContainer[Authorization.ClaimMatch]
        scopes: _containers.RepeatedScalarFieldContainer[str]
        clients: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, name: _Optional[str] = ..., action: _Optional[_Union[Authorization.Action, str]] = ..., provider: _Optional[str] = ..., claims: _Optional[_Iterable[_Union[Authorization.ClaimMatch, _Mapping]]] = ..., scopes: _Optional[_Iterable[str]] = ..., clients: _Optional[_Iterable[str]] = ...) -> None: ...
    RULES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ACTION_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[Authorization.Rule]
    default_action: Authorization.Action
    def __init__(self, rules: _Optional[_Iterable[_Union[Authorization.Rule, _Mapping]]] = ..., default_action: _Optional[_Union[Authorization.Action, str]] = ...) -> None: ...
