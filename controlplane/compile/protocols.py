"""What a listener's protocol means: over what it is carried, and which routes fit it (Gateway API: ProtocolType)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Transport = Literal["TCP", "UDP"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """`kinds` are the routes that may attach; `tls` says whether connections begin with a TLS handshake."""

    kinds: tuple[str, ...]
    transport: Transport = "TCP"
    tls: bool = False
    http: bool = False


PROTOCOLS: Final[Mapping[str, Protocol]] = MappingProxyType(
    {
        "HTTP": Protocol(("HTTPRoute", "GRPCRoute"), http=True),
        "HTTPS": Protocol(("HTTPRoute", "GRPCRoute"), tls=True, http=True),
        "TLS": Protocol(("TLSRoute",), tls=True),
        "TCP": Protocol(("TCPRoute",)),
        "UDP": Protocol(("UDPRoute",), transport="UDP"),
    }
)
HTTP_ROUTES: Final = ("HTTPRoute", "GRPCRoute")
"""Kinds whose rules choose among requests."""
STREAM_ROUTES: Final = ("TLSRoute", "TCPRoute", "UDPRoute")
"""Kinds whose rules choose among connections, or datagrams."""
ROUTES: Final = (*HTTP_ROUTES, *STREAM_ROUTES)
