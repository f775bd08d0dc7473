"""What the objects of a Gateway's data plane are called in its namespace."""

from __future__ import annotations

import hashlib
from typing import Final

_PREFIX: Final = "dragoman-"
_MAX: Final = 63


def resource_name(gateway_name: str) -> str:
    """Returns the name of the Deployment, Service, ServiceAccount and so on of a Gateway: a DNS label.

    Stable and told by the name alone: who shows the token of this ServiceAccount is taken for an Envoy of the Gateway.
    A name that does not fit is cut, and a hash of the whole keeps it apart from others.
    """
    name = f"{_PREFIX}{gateway_name}"
    if len(name) <= _MAX and "." not in name:
        return name
    digest = hashlib.blake2b(gateway_name.encode(), digest_size=5).hexdigest()
    return f"{name[: _MAX - len(digest) - 1].replace('.', '-').rstrip('-')}-{digest}"
