# pyright: standard
"""How the API server is reached and who asks: kubeconfig or service account, with credentials that rotate."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.kube.errors import KubeconfigError

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration

_REFRESH_S: Final = 30.0
_REFUSED_REFRESH_S: Final = 2.0
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Reload = Callable[[bool], "Awaitable[Configuration]"]
"""Reads the credentials again; with True, also those that should still hold."""


class Access:
    """Address of the API server, TLS and the header that says who asks. Files are read again when they may be new."""

    def __init__(self, reload: Reload, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reload = reload
        self._clock = clock
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._signature: tuple[object, ...] = ()
        self.url = ""
        self.proxy: str | None = None
        self.server_name: str | None = None
        """The name that the server's certificate is for, where it is not that of the URL."""
        self.tls: ssl.SSLContext | None = None
        self._authorization = ""

    async def headers(self, *, refused: bool = False) -> dict[str, str]:
        """Returns the headers that authenticate a request; `refused`: those before were answered with 401.

        Raises KubeconfigError if there have never been any.
        """
        limit_s = _REFUSED_REFRESH_S if refused else _REFRESH_S
        if self._clock() - self._read_at >= limit_s:
            async with self._lock:
                if self._clock() - self._read_at >= limit_s:
                    await self._read(refused)
        return {"Authorization": self._authorization} if self._authorization else {}

    async def _read(self, refused: bool) -> None:
        first = not self.url
        self._read_at = self._clock()
        try:
            configuration = await self._reload(refused)
            self._take(configuration)
        except KubeconfigError:
            if first:
                raise
        except Exception as error:
            # Being rewritten just now, or a plugin that fails for once: what was read before may well still hold.
            if first:
                raise KubeconfigError(str(error)) from error

    def _take(self, configuration: Configuration) -> None:
        self._take_tls(configuration)
        self.url = configuration.host.rstrip("/")
        self.proxy = configuration.proxy
        self.server_name = configuration.tls_server_name
        scheme, _, credentials = (configuration.api_key.get("BearerToken") or "").strip().partition(" ")
        self._authorization = f"{scheme.capitalize()} {credentials.strip()}" if credentials else ""

    def _take_tls(self, configuration: Configuration) -> None:
        if not configuration.host.startswith("https:"):
            self.tls = None
            return
        files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        signature = (configuration.verify_ssl, *map(_sign, files))
        if self.tls is None or signature != self._signature:
            self.tls = _tls(configuration)
            self._signature = signature


async def find_access(kubeconfig: Path | None = None, context: str | None = None) -> Access:
    """Returns how to reach the API server: by the kubeconfig given, $KUBECONFIG, in-cluster, or ~/.kube/config.

    Raises KubeconfigError, with words for people, where there is no way.
    """
    named = os.environ.get("KUBECONFIG", "")
    if kubeconfig is None and not named and context is None and _is_in_cluster():
        access = Access(_service_account)
    else:
        paths = str(kubeconfig) if kubeconfig is not None else named or str(Path.home() / ".kube" / "config")
        if not _is_any_there(paths):
            raise KubeconfigError(f"no kubeconfig at {paths}, and no service account of a pod")
        access = Access(_of_kubeconfig(paths, context))
    await access.headers()
    return access


def fixed_access(url: str, *, token: str = "", tls: ssl.SSLContext | None = None) -> Access:
    """Returns access by credentials that never change."""

    async def reload(refused: bool) -> Configuration:
        raise KubeconfigError("these credentials are all there are")

    access = Access(reload)
    access.url, access.tls = url.rstrip("/"), tls
    access._authorization = f"Bearer {token}" if token else ""
    return access


def _is_in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (_SERVICE_ACCOUNT / "token").is_file()


def _is_any_there(paths: str) -> bool:
    return any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path)


async def _service_account(refused: bool) -> Configuration:
    # Imported here, as it takes long and is not needed where there is no Kubernetes.
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader

    configuration = Configuration()
    files = {"token_filename": str(_SERVICE_ACCOUNT / "token"), "cert_filename": str(_SERVICE_ACCOUNT / "ca.crt")}
    InClusterConfigLoader(**files, try_refresh_token=False).load_and_set(configuration)
    return configuration


def _of_kubeconfig(paths: str, context: str | None) -> Reload:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import load_kube_config
    from kubernetes.aio.config.kube_config import KubeConfigLoader

    loader: KubeConfigLoader | None = None
    configuration = Configuration()

    async def reload(refused: bool) -> Configuration:
        nonlocal loader, configuration
        if loader is None or refused:
            configuration = Configuration()
            # Does not write refreshed tokens back: a kubeconfig is often mounted read-only.
            arguments = {"config_file": paths, "context": context, "persist_config": False}
            loader = await load_kube_config(client_configuration=configuration, **arguments)
        elif not _holds_until_refused(loader):
            await loader.load_and_set(configuration)
        return configuration

    return reload


def _holds_until_refused(loader: object) -> bool:
    """Whether the credentials came of a plugin that told no end of them: it is not to be run over and over."""
    user = getattr(loader, "_user", None)
    return user is not None and "exec" in user and not hasattr(loader, "exec_plugin_expiry")


def _sign(path: str | None) -> object:
    if not path:
        return None
    found = os.stat(path)
    return path, found.st_mtime_ns, found.st_ino, found.st_size


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Authorities of many clusters lack the key identifiers that newer Pythons insist on; the chain is checked all
    # the same.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
