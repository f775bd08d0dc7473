# pyright: standard, reportAttributeAccessIssue=false
"""Which resources hold private keys or key material: those are left out of what is kept in plain text.

Envoy's own messages say which of their fields are sensitive, all but a few. A resource is read off the wire, and only
where such a field can be: a route configuration of many thousand routes is not parsed for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import Default
from udpa.annotations import sensitive_pb2

from controlplane.xds.resources import Resource

_GOOGLE_GRPC: Final = "envoy.config.core.v3.GrpcService.GoogleGrpc.CallCredentials"
_CALL_CREDENTIALS: Final = "envoy.extensions.grpc_service.call_credentials"
# Sensitive fields that their authors have not marked, and our own.
_UNMARKED: Final = frozenset(
    {
        "dragoman.authz.v1.ApiKeyAuth.InlineKey.sha256",
        "envoy.extensions.filters.http.api_key_auth.v3.Credential.key",
        "envoy.config.trace.v3.LightstepConfig.access_token",
        "envoy.extensions.filters.http.aws_lambda.v3.Credentials.secret_access_key",
        "envoy.extensions.filters.http.aws_lambda.v3.Credentials.session_token",
        f"{_GOOGLE_GRPC}.access_token",
        f"{_GOOGLE_GRPC}.google_refresh_token",
        f"{_GOOGLE_GRPC}.ServiceAccountJWTAccessCredentials.json_key",
        f"{_GOOGLE_GRPC}.GoogleIAMCredentials.authorization_token",
        f"{_CALL_CREDENTIALS}.access_token.v3.AccessTokenCredentials.token",
        f"{_CALL_CREDENTIALS}.google_iam.v3.GoogleIamCredentials.authorization_token",
        f"{_CALL_CREDENTIALS}.google_refresh_token.v3.GoogleRefreshTokenCredentials.token",
        f"{_CALL_CREDENTIALS}.service_account_jwt_access.v3.ServiceAccountJwtAccessCredentials.json_key",
    }
)
# Marked, since others put credentials there: of ours it is the id of a policy, and a route without it is not guarded.
_HARMLESS: Final = frozenset({"envoy.extensions.filters.http.ext_authz.v3.CheckSettings.context_extensions"})
# An Any: the name of its type ends a string, and the tag of its value follows.
_PACKED: Final = re.compile(rb"/((?:envoy|dragoman|udpa|xds|google)\.[A-Za-z0-9_.]+)\x12")
_MAX_DEPTH: Final = 64
_MAX_TYPES: Final = 10_000
# They hold any message in a form that says nothing of its fields.
_OPAQUE: Final = frozenset({b"udpa.type.v1.TypedStruct", b"xds.type.v3.TypedStruct"})


class Secrets:
    """Tells resources that hold secrets from others; remembers what it has learned of types. For one thread."""

    def __init__(self) -> None:
        self._pool: Any = Default()
        self._types: dict[bytes, Any] = {}
        self._fields: dict[str, dict[int, Any]] = {}

    def are_in(self, resource: Resource) -> bool:
        """Whether a resource holds a secret; one that cannot be judged is taken to hold one."""
        try:
            return self._are_in(resource)
        except (ValueError, IndexError):
            return True

    def _are_in(self, resource: Resource) -> bool:
        body = memoryview(resource.body)
        if self._is_secret(resource.type_url.rpartition("/")[2].encode(), body):
            return True
        for found in _PACKED.finditer(resource.body):
            if self._may_hold(found[1]):
                size, start = _varint(body, found.end())
                if self._is_secret(found[1], body[start : start + size]):
                    return True
        return False

    def _may_hold(self, name: bytes) -> bool:
        descriptor = self._type(name)
        return descriptor is None or bool(self._suspects(descriptor))

    def _is_secret(self, name: bytes, body: memoryview) -> bool:
        descriptor = self._type(name)
        return descriptor is None or self._walk(descriptor, body, 0)

    def _walk(self, descriptor: Any, body: memoryview, depth: int) -> bool:
        suspects = self._suspects(descriptor)
        if not suspects:
            return False
        if depth > _MAX_DEPTH:
            return True
        for number, value in _fields(body):
            field = suspects.get(number)
            if field is None or not value:
                continue
            if _is_sensitive(field) or self._walk(field.message_type, value, depth + 1):
                return True
        return False

    def _suspects(self, descriptor: Any) -> dict[int, Any]:
        """The fields of a message by number that are secret, or below which there may be one (not in an Any)."""
        known = self._fields.get(descriptor.full_name)
        if known is None:
            fields = descriptor.fields
            known = {each.number: each for each in fields if _is_sensitive(each) or _reaches(each, set())}
            self._fields[descriptor.full_name] = known
        return known

    def _type(self, name: bytes) -> Any:
        if name not in self._types:
            if len(self._types) >= _MAX_TYPES:
                return None
            try:
                known = None if name in _OPAQUE else self._pool.FindMessageTypeByName(name.decode())
                self._types[name] = known
            except KeyError:
                self._types[name] = None
        return self._types[name]


def _is_sensitive(field: Any) -> bool:
    if field.full_name in _HARMLESS:
        return False
    return field.GetOptions().Extensions[sensitive_pb2.sensitive] or field.full_name in _UNMARKED


def _reaches(field: Any, above: set[Any]) -> bool:
    inner = field.message_type
    if field.type != FieldDescriptor.TYPE_MESSAGE or inner in above:
        return False
    above.add(inner)
    return any(_is_sensitive(each) or _reaches(each, above) for each in inner.fields)


def _fields(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields the length-delimited fields of a message; Protocol Buffers: Encoding."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(body, at)
            yield tag >> 3, body[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(body, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} in a resource of our own")


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
