"""Who is let in to xDS in a cluster by what is at hand, before the API server has been asked: after a restart it may be
away, and Envoys are to be served all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controlplane.cluster.settings import ClusterSettings
from controlplane.kept.token_keys import FILE, load_token_keys, save_token_keys
from controlplane.xds.authentication import Authenticated
from controlplane.xds.credentials import CertificateError, KeyPair, ServerTls
from controlplane.xds.identity import Principal
from controlplane.xds.server import Context, End, Method
from controlplane.xds.tokens import ServiceAccountTokens
from dragoman.grpc_worker.api import StatusCode

_log = logging.getLogger(__name__)

_ITSELF: Final = "controlplane"
_MAX_PEM: Final = 1024 * 1024

Get = Callable[[str], Awaitable[Mapping[str, Any]]]


class ApiServer:
    """Asks the API server, as soon as somebody has said how."""

    def __init__(self) -> None:
        self.get: Get | None = None

    async def __call__(self, path: str) -> Mapping[str, Any]:
        """Returns the document at a path; raises ConnectionError until it is known how."""
        if self.get is None:
            raise ConnectionError("the API server has not been asked yet")
        return await self.get(path)


class LaterMethod:
    """A method that is served from the first moment on, and done by whoever comes later."""

    def __init__(self) -> None:
        self.work: Method | None = None

    async def __call__(self, context: Context, principal: Principal) -> End | None:
        """Does what a call asks for; ends it until it is known how."""
        if self.work is None:
            return End(StatusCode.UNAVAILABLE, "the control plane is starting", "starting")
        return await self.work(context, principal)


@dataclass(frozen=True, slots=True)
class Doorway:
    """How clients show who they are; `tls` is None where there is no certificate at hand, `authorities` are its own."""

    api: ApiServer
    tokens: ServiceAccountTokens
    share: LaterMethod
    tls: ServerTls | None = None
    authorities: str = ""

    @property
    def admission(self) -> Authenticated | None:
        """Who is let in; None where nobody can be, yet."""
        return Authenticated(self.tokens, self.tls) if self.tls is not None and self.tokens.ready else None


def doorway(settings: ClusterSettings, *, state: Path | None) -> Doorway:
    """Returns what can be had of the folder where the certificate's Secret is mounted, and of the `state`."""
    api = ApiServer()
    keys_file = None if state is None else state / FILE
    services = {account: name for name, account in settings.service_accounts.items() if name != _ITSELF}
    tokens = ServiceAccountTokens(
        api,
        services=services,
        replicas=settings.service_accounts.get(_ITSELF),
        keys=None if keys_file is None else load_token_keys(keys_file),
        on_keys=lambda keys: None if keys_file is None else save_token_keys(keys_file, keys),
    )
    pair, authorities = _mounted(settings.secret_folder)
    return Doorway(api, tokens, LaterMethod(), pair, authorities)


def _mounted(folder: Path | None) -> tuple[ServerTls | None, str]:
    if folder is None:
        return None, ""
    try:
        chain, key, authorities = (_read(folder / name) for name in ("tls.crt", "tls.key", "ca.crt"))
        return ServerTls(KeyPair(chain, key)), authorities.decode()
    except FileNotFoundError:
        return None, ""  # Its Secret is empty yet.
    except (OSError, ValueError) as fault:
        reason = fault if isinstance(fault, CertificateError) else type(fault).__name__
        _log.warning("the certificate in %s cannot be used: %s", folder, reason)
        return None, ""


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_PEM)
