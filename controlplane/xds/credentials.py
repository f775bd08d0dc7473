"""The certificate that xDS is served with: replaced while the server runs, for connections from then on."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class CertificateError(ValueError):
    """A certificate and a key cannot be served with; the message holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate, the intermediates after it, and its private key, as PEM."""

    chain: bytes
    key: bytes = field(repr=False)

    def check(self) -> None:
        """Raises CertificateError unless both can be read and belong together."""
        # Only here: it takes a while to load, and a control plane on loopback has no certificate.
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        try:
            leaf = x509.load_pem_x509_certificates(self.chain)[0]
            key = serialization.load_pem_private_key(self.key, None)
        except (ValueError, TypeError, IndexError) as error:
            raise CertificateError("the certificate or its key cannot be read") from error
        if _spki(leaf.public_key()) != _spki(key.public_key()):
            raise CertificateError("the certificate is not for its key")


class ServerTls:
    """What is served with now; `replace` is for connections from then on, those that are open stay."""

    def __init__(self, pair: KeyPair) -> None:
        """Raises CertificateError where the pair is no good."""
        pair.check()
        self._pair = pair
        self.context = _context(pair)
        """For connections from now on; another after `replace`."""

    def replace(self, pair: KeyPair) -> None:
        """Takes a new pair; raises CertificateError, and keeps what there is, where that is no good."""
        if pair != self._pair:
            pair.check()
            self.context = _context(pair)
            self._pair = pair

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for one listener of grpcio's, that look here at every handshake."""
        import grpc

        served = self._pair

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC's own threads.
            nonlocal served
            newest = self._pair
            if newest is served:
                return None
            served = newest
            return _configuration(newest)

        # None for "no change" is gRPC's contract, which its types leave out.
        return grpc.dynamic_ssl_server_credentials(_configuration(served), fetch)  # pyright: ignore[reportArgumentType]


def _configuration(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
    import grpc

    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)])


def _context(pair: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    # Connections last; who comes back does so after a restart, which no ticket outlives.
    context.num_tickets = 0
    # It loads from files alone; this one is in memory only.
    held = os.memfd_create("xds-certificate", os.MFD_CLOEXEC)
    try:
        with open(held, "wb", closefd=False) as file:
            file.write(pair.chain + b"\n" + pair.key)
        context.load_cert_chain(f"/proc/self/fd/{held}")
    except OSError as error:
        raise CertificateError("the certificate or its key cannot be used") from error
    finally:
        os.close(held)
    return context


def _spki(key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    to_bytes = getattr(key, "public_bytes")  # noqa: B009  (every kind of key has it, no common type says so)
    encoded: bytes = to_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
