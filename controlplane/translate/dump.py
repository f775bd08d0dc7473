# pyright: standard, reportAttributeAccessIssue=false
"""Envoy resources as plain data, for people and golden tests; private keys and credentials are not shown."""

from __future__ import annotations

import importlib
from typing import Any

from google.protobuf.json_format import MessageToDict

from controlplane.translate import newer

# The messages that may be packed into resources must be known to the pool before they can be shown.
_MODULES = (
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.transport_sockets.tls.v3.secret_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
)
_SECRET_FIELDS = frozenset({"privateKey", "inlineBytes", "inlineString", "password"})
REDACTED = "(redacted)"


def to_dict(type_url: str, body: bytes, *, redact: bool = True) -> dict[str, Any]:
    """Returns a resource as Envoy's JSON has it, with secrets redacted unless they are asked for."""
    for module in _MODULES:
        importlib.import_module(module)
    message_type = newer.message(type_url.rpartition("/")[2])
    message = MessageToDict(message_type.FromString(body), descriptor_pool=newer.pool())
    return _walk(message, hide_inline=type_url.endswith(".Secret")) if redact else message


def _walk(value: Any, *, hide_inline: bool) -> Any:
    if isinstance(value, list):
        return [_walk(item, hide_inline=hide_inline) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("@type", "").endswith("ApiKeyAuthPerRoute"):
        value = {**value, "credentials": [{**c, "key": REDACTED} for c in value.get("credentials", ())]}
    return {
        key: REDACTED if hide_inline and key in _SECRET_FIELDS else _walk(item, hide_inline=hide_inline)
        for key, item in value.items()
    }
