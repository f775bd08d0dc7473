"""What a control plane has to know of the cluster that it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CertificateMode = Literal["self-made", "cert-manager", "existing"]


@dataclass(frozen=True, slots=True)
class Identity:
    """The pod that this process runs in; outside of one, what stands for it."""

    name: str
    namespace: str
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """How the parts that speak with Kubernetes are to behave.

    `xds_address` (HOST:PORT) is where Envoys find the control plane; without it none are started. `secret` holds the
    certificate that xDS is served with; without it xDS is in plain text. `secret_folder` is where it is mounted, for a
    start without the API server. `service_accounts` tells those of ext_authz
    and of the rate limit service, and our own: `authz`, `ratelimit`, `controlplane` → (namespace, name). `token` is the
    file with the token that this replica shows to the one that leads.
    """

    identity: Identity
    namespaces: tuple[str, ...] = ()
    lease: str = "dragoman"
    secret: str | None = None
    certificate: CertificateMode = "self-made"
    xds_address: str | None = None
    image: str = ""
    envoy_image: str = ""
    provisioning: bool = True
    token: Path | None = None
    secret_folder: Path | None = None
    service_secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    service_accounts: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
