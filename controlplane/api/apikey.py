"""API keys: kept in Secrets (`apiKeyAuth`), or made and revoked with `dragoman key` (`consumers`)."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, model_validator

from controlplane.api.meta import Model, SecretObjectReference
from controlplane.api.scalars import Bool, HeaderName, refuse

_Names: TypeAlias = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=16)]


class ExtractFrom(Model):
    """One kind of place that a key may be in; the first that holds one counts."""

    headers: Annotated[tuple[HeaderName, ...], Field(max_length=16)] = ()
    """Names of headers."""
    params: _Names = ()
    """Query parameters."""
    cookies: _Names = ()
    """Names of cookies."""

    @model_validator(mode="after")
    def _one_kind(self) -> ExtractFrom:
        if sum(map(bool, (self.headers, self.params, self.cookies))) != 1:
            raise refuse("set exactly one of headers, params and cookies")
        return self


class APIKeyAuth(Model):
    """Requests carry a key that is in a Secret."""

    credential_refs: Annotated[tuple[SecretObjectReference, ...], Field(min_length=1, max_length=64)]
    """Secrets whose keys are client identities and whose values are API keys."""
    extract_from: Annotated[tuple[ExtractFrom, ...], Field(min_length=1, max_length=8)]
    """Places that a key may be in, in this order."""
    forward_client_id_header: Annotated[HeaderName | None, Field(alias="forwardClientIDHeader")] = None
    """Header that tells the backend the client identity."""
    sanitize: Bool = False
    """Remove the key before the request goes to the backend."""


class MetadataToHeader(Model):
    """Metadata of a key that becomes a request header."""

    key: Annotated[str, Field(min_length=1, max_length=256)]
    """Name in the metadata that `dragoman key create` was given, such as `tenant` or `plan`."""
    header: HeaderName
    """Name of the header."""


DEFAULT_EXTRACT_FROM = (ExtractFrom(headers=("x-api-key",)),)


class Consumers(Model):
    """Requests carry a key that was made with `dragoman key create`."""

    extract_from: Annotated[tuple[ExtractFrom, ...], Field(max_length=8)] = DEFAULT_EXTRACT_FROM
    """The header `x-api-key` when absent."""
    required_scopes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(max_length=32)
    ] = ()
    """Scopes that the key must have, all of them; else the answer is 403."""
    metadata_to_headers: Annotated[tuple[MetadataToHeader, ...], Field(max_length=32)] = ()
    """Metadata to pass on; headers of these names that a client sends are removed, and limits can select by them."""
    forward_client_id_header: Annotated[HeaderName | None, Field(alias="forwardClientIDHeader")] = None
    """Header that tells the backend the identity of the key."""
    sanitize: Bool = True
    """Remove the key before the request goes to the backend."""
