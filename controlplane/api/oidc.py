"""OpenID Connect: browsers are sent to a provider to log in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controlplane.api.meta import Model, SecretObjectReference
from controlplane.api.policy import BackendCluster
from controlplane.api.scalars import Bool, Duration, HeaderName, PreciseHostname, refuse


class OIDCProvider(BackendCluster):
    """The provider that users log in at."""

    issuer: Annotated[str, Field(min_length=1, max_length=1024)]
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    end_session_endpoint: str | None = None


class OIDCCookieNames(Model):
    """Names of the cookies that hold tokens."""

    access_token: str | None = None
    id_token: str | None = None


class OIDCCookieConfig(Model):
    """How the cookies are set."""

    same_site: Literal["Lax", "Strict", "None"] | None = None


class OIDCDenyRedirectHeader(Model):
    """A header by which a request is known that must not be redirected."""

    name: HeaderName
    type: Literal["Exact", "Prefix", "Suffix", "RegularExpression"] = "Exact"
    value: Annotated[str, Field(min_length=1, max_length=1024)]


class OIDCDenyRedirect(Model):
    """Requests that get 401 instead of a redirect."""

    headers: Annotated[tuple[OIDCDenyRedirectHeader, ...], Field(min_length=1, max_length=16)]


class OIDCTokenForwarding(Model):
    """A header for the token on the way to the backend."""

    header: HeaderName


class OIDC(Model):
    """Users log in at an OpenID Connect provider."""

    provider: OIDCProvider
    client_id: Annotated[str | None, Field(alias="clientID", min_length=1)] = None
    client_id_ref: Annotated[SecretObjectReference | None, Field(alias="clientIDRef")] = None
    client_secret: SecretObjectReference
    cookie_names: OIDCCookieNames | None = None
    cookie_config: OIDCCookieConfig | None = None
    cookie_domain: PreciseHostname | None = None
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    redirect_url: Annotated[str | None, Field(alias="redirectURL")] = None
    deny_redirect: OIDCDenyRedirect | None = None
    logout_path: str | None = None
    forward_access_token: Bool = False
    forward_id_token: Annotated[OIDCTokenForwarding | None, Field(alias="forwardIDToken")] = None
    default_token_ttl: Annotated[Duration | None, Field(alias="defaultTokenTTL")] = None
    refresh_token: Bool = True
    default_refresh_token_ttl: Annotated[Duration | None, Field(alias="defaultRefreshTokenTTL")] = None
    csrf_token_ttl: Annotated[Duration | None, Field(alias="csrfTokenTTL")] = None
    disable_token_encryption: Bool = False
    pass_through_auth_header: Bool = False

    @model_validator(mode="after")
    def _one_client_id(self) -> OIDC:
        if (self.client_id is None) == (self.client_id_ref is None):
            raise refuse("set either clientID or clientIDRef")
        return self
