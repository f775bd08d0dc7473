"""The certificate that the control plane serves xDS with, kept in Secrets: made and renewed here, or by somebody else.

Two Secrets are ours: the leaf's (`tls.crt`, `tls.key`, `ca.crt`: what cert-manager writes too), and the authority's
beside it, whose key nobody needs but who renews the leaf.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

from controlplane.kube.errors import ApiError, CertificatesError
from controlplane.kube.issuing import Issued, IssueError, bundle, is_for, new_authority, new_leaf, renew_authority
from controlplane.kube.paths import path_of

_log = logging.getLogger(__name__)

_LABELS: Final = {"app.kubernetes.io/managed-by": "dragoman"}
# Not the label: an empty Secret that was put there to be filled is ours too, though a chart has labelled it.
_MARK: Final = "dragoman.dev/certificate"
_SELF_MADE: Final = "self-made"
_POLL_S: Final = 30.0
_TRIES: Final = 5


class SecretsApi(Protocol):
    """What is used of the API client."""

    async def get(self, path: str) -> dict[str, Any]: ...
    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]: ...
    async def replace(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM: the leaf with its intermediates, its key, and the authorities (one or several) to check it by."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes


async def ensure(
    api: SecretsApi,
    *,
    namespace: str,
    secret_name: str,
    dns_names: Sequence[str],
    now: datetime,
    authority_name: str | None = None,
    make: bool = True,
) -> Certificates:
    """Returns what is in the Secret, which is made where it is not there, and renewed before it ends.

    The authority is in the Secret `authority_name` (by default `SECRET-ca`; several leaves may share one). An empty
    Secret is filled; one that is neither empty nor filled by us is somebody else's, and only read, as all are with
    `make=False`. Several replicas may do this at once. Raises CertificatesError, and ApiError.
    """
    work = _Work(api, namespace, secret_name, authority_name or f"{secret_name}-ca", tuple(dns_names), now)
    for _ in range(_TRIES):
        try:
            return await work.ensure(make=make)
        except ApiError as error:
            # Another replica was quicker: what it wrote is as good.
            if not (error.exists or error.conflict):
                raise
    raise CertificatesError(f"Secret {namespace}/{secret_name} changes all the time")


async def keep(
    read: Callable[[], Awaitable[Certificates]],
    on_change: Callable[[Certificates], None],
    *,
    first: Certificates | None = None,
    poll_s: float = _POLL_S,
) -> None:
    """Reads (by `ensure`) again and again until cancelled, and tells when there is something else than before."""
    known, fault = first, ""
    while True:
        try:
            found = await read()
            if found != known:
                on_change(found)
                known = found
            fault = ""
        except (ApiError, CertificatesError, ValueError) as error:
            # What is served stays; said once.
            if str(error) != fault:
                _log.warning("the certificate of xDS cannot be looked after: %s", error)
            fault = str(error)
        await asyncio.sleep(poll_s * random.uniform(0.8, 1.2))  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Work:
    api: SecretsApi
    namespace: str
    name: str
    authority_name: str
    dns_names: tuple[str, ...]
    now: datetime

    async def ensure(self, *, make: bool) -> Certificates:
        secret = await self._get(self.name)
        empty = secret is None or _is_empty(secret)
        if not make and empty:
            raise CertificatesError(f"Secret {self.namespace}/{self.name} is not there yet")
        if secret is not None and not empty and not (make and _is_ours(secret)):
            return self._foreign(secret)
        authority = await self._authority()
        if secret is None or empty:
            issued = new_leaf(authority, self.dns_names, self.now)
            return await self._write(secret, issued, bundle([authority.certificate], self.now))
        return await self._refreshed(secret, authority)

    async def _refreshed(self, secret: dict[str, Any], authority: Issued) -> Certificates:
        held = _read(secret)
        # Those that were trusted before stay so while they last: leaves of theirs may still be served.
        authorities = bundle([authority.certificate, held.authorities], self.now)
        if is_for(held.chain, held.key, self.dns_names, authorities, self.now):
            if authorities == held.authorities:
                return held
            return await self._write(secret, Issued(held.chain, held.key), authorities)
        _log.info("renewing the certificate in Secret %s/%s", self.namespace, self.name)
        return await self._write(secret, new_leaf(authority, self.dns_names, self.now), authorities)

    def _foreign(self, secret: dict[str, Any]) -> Certificates:
        held = _read(secret)
        missing = [name for name, value in _named(held).items() if not value]
        if missing:
            raise CertificatesError(f"Secret {self.namespace}/{self.name} lacks {', '.join(missing)}")
        return held

    async def _authority(self) -> Issued:
        secret = await self._get(self.authority_name)
        if secret is None or _is_empty(secret):
            issued = new_authority(self.now)
            await self._put(self.authority_name, secret, {"tls.crt": issued.certificate, "tls.key": issued.key})
            _log.info("made the authority in Secret %s/%s", self.namespace, self.authority_name)
            return issued
        held = _read(secret)
        issued = Issued(held.chain, held.key)
        try:
            renewed = renew_authority(issued, self.now)
        except IssueError as error:
            raise CertificatesError(f"Secret {self.namespace}/{self.authority_name}: {error}") from error
        if renewed is not None and _is_ours(secret):
            await self._put(self.authority_name, secret, {"tls.crt": renewed.certificate, "tls.key": renewed.key})
            return renewed
        return issued

    async def _write(self, old: dict[str, Any] | None, leaf: Issued, authorities: bytes) -> Certificates:
        made = Certificates(leaf.certificate, leaf.key, authorities)
        await self._put(self.name, old, _named(made))
        return made

    async def _get(self, name: str) -> dict[str, Any] | None:
        try:
            return await self.api.get(path_of("", "v1", "secrets", self.namespace, name))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def _put(self, name: str, old: dict[str, Any] | None, data: Mapping[str, bytes]) -> None:
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        mark = {_MARK: _SELF_MADE}
        if old is not None:
            metadata = {**old["metadata"], "annotations": {**_annotations(old), **mark}}
            filled: dict[str, Any] = {**old, "metadata": metadata, "data": encoded}
            await self.api.replace(path_of("", "v1", "secrets", self.namespace, name), filled)
            return
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": self.namespace, "name": name, "labels": _LABELS, "annotations": mark},
            "type": "kubernetes.io/tls",
            "data": encoded,
        }
        await self.api.create(path_of("", "v1", "secrets", self.namespace), document)


def _named(held: Certificates) -> dict[str, bytes]:
    return {"tls.crt": held.chain, "tls.key": held.key, "ca.crt": held.authorities}


def _read(secret: Mapping[str, Any]) -> Certificates:
    data = cast("dict[str, str]", secret.get("data") or {})
    try:
        chain, key, authorities = (base64.b64decode(data.get(name, "")) for name in ("tls.crt", "tls.key", "ca.crt"))
    except ValueError as error:
        raise CertificatesError(f"Secret {secret['metadata'].get('name')} cannot be read") from error
    return Certificates(chain, key, authorities)


def _is_ours(secret: Mapping[str, Any]) -> bool:
    return _annotations(secret).get(_MARK) == _SELF_MADE


def _annotations(secret: Mapping[str, Any]) -> dict[str, str]:
    return cast("dict[str, str]", secret["metadata"].get("annotations") or {})


def _is_empty(secret: Mapping[str, Any]) -> bool:
    data = cast("dict[str, str]", secret.get("data") or {})
    return not any(data.get(name) for name in ("tls.crt", "tls.key"))


def utc_now() -> datetime:
    """Returns the present time, with its zone."""
    return datetime.now(UTC)
