# pyright: standard, reportAttributeAccessIssue=false
"""Filters whose settings come by ECDS: what cannot be set per route changes without touching a listener."""

from __future__ import annotations

from envoy.config.core.v3.config_source_pb2 import ExtensionConfigSource
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.message import Message

from controlplane.translate.clusters import ads
from controlplane.translate.wire import duration, encode, packed

# A listener whose filters have not come yet warms, while the one before it serves: better than 500 after a while.
_WITHOUT_TIMEOUT = ads()
_WITHOUT_TIMEOUT.initial_fetch_timeout.CopyFrom(duration(0))


def discovered(name: str, message: type[Message], *, disabled: bool = False) -> HttpFilter:
    """Returns a filter whose settings, of this type, are the extension of the same name.

    A Gateway's Envoys are sent its own extensions alone, so that the name need not tell the Gateway.
    """
    source = ExtensionConfigSource(
        config_source=_WITHOUT_TIMEOUT, type_urls=[f"type.googleapis.com/{message.DESCRIPTOR.full_name}"]
    )
    return HttpFilter(name=name, config_discovery=source, disabled=disabled)


def extension(name: str, config: Message) -> bytes:
    """Encodes the extension of a name."""
    return encode(TypedExtensionConfig(name=name, typed_config=packed(config)))
