"""Certificates that are replaced on disk while a server runs, as cert-manager and SPIFFE helpers do."""

import ipaddress
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.grpc_worker.api import TlsFiles
from dragoman.logs import in_words

log = logging.getLogger("dragoman.grpc_worker")


class Watched:
    """Says whether the files have changed since it was last asked."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._seen = self._state()

    def changed(self) -> bool:
        now = self._state()
        if now is None or now == self._seen:
            return False
        self._seen = now
        return True

    def _state(self) -> tuple[tuple[int, int, int], ...] | None:
        paths = [self.files.certificate, self.files.private_key, self.files.client_ca]
        try:
            found = [path.stat() for path in paths if path is not None]
        except OSError:
            return None  # Between two versions, perhaps.
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


class ServerTls:
    """An SSL context for HTTP/2 whose certificate follows its files; a client CA that is taken away needs a restart."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises OSError, which names them, when the files cannot be used."""
        self._watched = Watched(files)
        self.context = _context(files)
        self._client_san = files.client_san

    def fault_of(self, client: ssl.SSLObject) -> str | None:
        """Returns why a client is not let in that has shaken hands; None if it is."""
        if client.selected_alpn_protocol() != "h2":
            return "it does not speak HTTP/2"
        if self._client_san and not is_for(client.getpeercert() or {}, self._client_san):
            return f"its certificate is not for {self._client_san}"
        return None

    def refresh(self) -> None:
        """Takes new files in, for connections from now on; keeps what it has when they do not fit together."""
        if not self._watched.changed():
            return
        files = self._watched.files
        try:
            _context(files)
            _load(self.context, files)
        except OSError as error:
            log.error("the new certificate %s is not used: %s", files.certificate, error)
        else:
            log.info("took the new certificate %s", files.certificate)


def is_for(certificate: Mapping[str, Any], name: str) -> bool:
    """Whether a certificate, as `getpeercert` tells it, is for a DNS name, an IP address or a URI (RFC 9525 §6)."""
    names: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    if "://" in name:
        return ("URI", name) in names
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return any(kind == "DNS" and _fits(pattern.lower(), name.lower().rstrip(".")) for kind, pattern in names)
    return any(kind == "IP Address" and _is_address(told, address) for kind, told in names)


def _fits(pattern: str, name: str) -> bool:
    label, dot, parent = name.partition(".")
    return pattern == name or bool(label and dot and pattern == f"*.{parent}")


def _is_address(told: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(told.strip()) == address
    except ValueError:
        return False


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    _load(context, files)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    loading = f"certificate {files.certificate} with key {files.private_key}"
    try:
        # With no password at all, OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(files.certificate, files.private_key, password="")
        if files.client_ca is not None:
            loading = f"authorities {files.client_ca}"
            context.load_verify_locations(files.client_ca)
    except OSError as error:
        raise OSError(f"{loading} cannot be used: {in_words(error)}") from error
