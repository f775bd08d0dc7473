"""How xDS is served in a cluster: by TLS with the certificate of a Secret, to who shows a service-account token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from controlplane.cluster.doorway import Doorway
from controlplane.cluster.envoys import Trust
from controlplane.cluster.settings import ClusterSettings
from controlplane.kube.certificates import Certificates, ensure, keep, utc_now
from controlplane.kube.client import Api
from controlplane.kube.errors import ApiError, CertificatesError
from controlplane.provision.address import TcpAddress, parse_address
from controlplane.translate.services import ServiceTls
from controlplane.xds.authentication import Authenticated
from controlplane.xds.credentials import KeyPair, ServerTls

_log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 5.0
_KEY_SETS: Final = "application/jwk-set+json, application/json"


@dataclass(frozen=True, slots=True)
class Secured:
    """Who is let in, and what has to run for that, by name."""

    admission: Authenticated
    tasks: Mapping[str, Coroutine[Any, Any, None]]


async def secured(
    api: Api, settings: ClusterSettings, secret: str, door: Doorway, *, on_trust: Callable[[Trust], None]
) -> Secured:
    """Returns how xDS is served; `on_trust` hears, now and when they change, whom Envoys are to trust.

    Where nothing is at hand in the doorway, waits for a certificate that somebody else is to make, and for an API
    server that does not answer. Raises ApiError where that would not help.
    """
    names = dns_names(settings)
    read = partial(_read, api, settings, secret, names)
    door.api.get = partial(api.get, accept=_KEY_SETS)
    first: Certificates | None = None
    tls, authorities = door.tls, door.authorities
    if door.admission is None or tls is None:
        first = await _patiently(read)
        tls, authorities = ServerTls(KeyPair(first.chain, first.key)), first.authorities.decode()

    def changed(found: Certificates) -> None:
        tls.replace(KeyPair(found.chain, found.key))
        on_trust(Trust(names[0], found.authorities.decode()))

    on_trust(Trust(names[0], authorities))
    return Secured(
        Authenticated(door.tokens, tls),
        {"certificate": keep(read, changed, first=first), "token keys": door.tokens.run()},
    )


async def secured_service(
    api: Api, settings: ClusterSettings, secret: str, address: str, *, on_trust: Callable[[ServiceTls], None]
) -> Coroutine[Any, Any, None]:
    """Sees to the certificate of a service at `address` (HOST:PORT); returns what keeps it from then on.

    `on_trust` hears, now and when it changes, by what Envoys are to know the service. Raises as `secured` does.
    """
    names = _with_shorter(address.rpartition(":")[0])
    read = partial(_read, api, settings, secret, names)

    def changed(found: Certificates) -> None:
        on_trust(ServiceTls(found.authorities.decode(), names[0]))

    first = await _patiently(read)
    changed(first)
    return keep(read, changed, first=first)


def dns_names(settings: ClusterSettings) -> list[str]:
    """Returns the names that the certificate is for, first the one that Envoys use."""
    address = parse_address(settings.xds_address) if settings.xds_address is not None else None
    return _with_shorter(
        address.host if isinstance(address, TcpAddress) else f"dragoman.{settings.identity.namespace}.svc"
    )


def _with_shorter(host: str) -> list[str]:
    shorter = host.partition(".svc.")[0] + ".svc" if ".svc." in host else host
    return list(dict.fromkeys((host, shorter)))


async def _patiently(read: Callable[[], Awaitable[Certificates]]) -> Certificates:
    wait_s, said = _FIRST_WAIT_S, ""
    while True:
        try:
            return await read()
        except (ApiError, CertificatesError) as error:
            if isinstance(error, ApiError) and not error.transient:
                raise
            if str(error) != said:
                said = str(error)
                _log.warning("waiting for a certificate to serve with: %s", said)
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


async def _read(api: Api, settings: ClusterSettings, secret: str, names: list[str]) -> Certificates:
    return await ensure(
        api,
        namespace=settings.identity.namespace,
        secret_name=secret,
        authority_name=f"{settings.secret}-ca",
        dns_names=names,
        now=utc_now(),
        make=settings.certificate == "self-made",
    )
