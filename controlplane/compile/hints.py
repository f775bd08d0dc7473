"""What an HTTPRoute may ask for that Gateway API has no field for, by annotations; expanded Ingresses do.

`dragoman.dev/backend-protocol` (HTTPS, GRPC, GRPCS) says what backends speak that do not say it themselves; with TLS,
their certificates are checked only where a BackendTLSPolicy says how. `dragoman.dev/idle-timeout` (a duration) ends
requests on which nothing has moved for so long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.api.scalars import parse_duration

BACKEND_PROTOCOL: Final = "dragoman.dev/backend-protocol"
IDLE_TIMEOUT: Final = "dragoman.dev/idle-timeout"


@dataclass(frozen=True, slots=True)
class Hints:
    """`http2` and `tls` are how backends are spoken to; `idle_s` is None where nothing is asked."""

    http2: bool = False
    tls: bool = False
    idle_s: float | None = None


NO_HINTS: Final = Hints()


def hints(annotations: Mapping[str, str]) -> Hints:
    """Reads the annotations of a route; what is not understood asks for nothing."""
    if not annotations:
        return NO_HINTS
    protocol, idle = annotations.get(BACKEND_PROTOCOL, ""), annotations.get(IDLE_TIMEOUT)
    try:
        idle_s = parse_duration(idle).total_seconds() if idle is not None else None
    except ValueError:
        idle_s = None
    return Hints(protocol in ("GRPC", "GRPCS"), protocol in ("HTTPS", "GRPCS"), idle_s)
