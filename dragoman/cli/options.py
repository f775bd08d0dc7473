"""What options of several commands mean."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.cluster.settings import ClusterSettings, Identity
from dragoman.cli.errors import CommandError
from dragoman.cli.settings import ServeSettings

if TYPE_CHECKING:
    from controlplane.quarantine.validator import Validator


def state_file(settings: ServeSettings) -> Path | None:
    """Returns where the last good version of each object is kept."""
    return None if settings.state is None else settings.state / "accepted.db"


def validator(validate_with: str | None) -> Validator | None:
    """Returns what is to be asked before anything risky is published; raises CommandError where it is not there."""
    if (envoy := envoy_to_ask(validate_with)) is None:
        return None
    # Only here: the wire types take long to load, and hardly anybody asks for this.
    from controlplane.quarantine.validator import Validator

    return Validator(envoy)


def envoy_to_ask(validate_with: str | None) -> Path | None:
    """Returns the binary that is to be asked, None where nobody is; raises CommandError where it is not there."""
    if validate_with is None:
        return None
    if validate_with != "envoy":
        raise CommandError("--validate-with: expected envoy")
    from controlplane.provision.binary import find_envoy

    envoy = find_envoy()
    if envoy is None:
        raise CommandError("--validate-with envoy: there is no `envoy` beside this Python nor on the PATH")
    return envoy


def nameserver(text: str) -> tuple[str, int]:
    """Reads HOST or HOST:PORT of a DNS server."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text.strip("[]"), 53
    if not port.isdecimal():
        raise CommandError(f"--dns {text}: expected HOST:PORT")
    return host.strip("[]"), int(port)


def cluster_settings(settings: ServeSettings) -> ClusterSettings:
    """Returns what the parts that speak with Kubernetes are told; who this is comes from the pod's environment."""
    secrets = [each.partition("=") for each in settings.service_secret]
    accounts: dict[str, tuple[str, str]] = {}
    for each in settings.service_account:
        service, _, account = each.partition("=")
        namespace, _, name = account.partition("/")
        accounts[service] = (namespace, name)
    identity = Identity(
        name=os.environ.get("POD_NAME") or socket.gethostname(),
        namespace=os.environ.get("POD_NAMESPACE") or "default",
        address=os.environ.get("POD_IP") or "",
    )
    return ClusterSettings(
        identity=identity,
        namespaces=settings.namespace,
        lease=settings.lease,
        secret=None if settings.xds_insecure else settings.xds_secret,
        certificate=settings.xds_certificate,
        xds_address=settings.xds_address,
        image=settings.image,
        envoy_image=settings.envoy_image,
        provisioning=settings.provisioning,
        token=settings.xds_token,
        secret_folder=settings.xds_secret_folder,
        service_secrets={service: name for service, _, name in secrets},
        service_accounts=accounts,
    )
