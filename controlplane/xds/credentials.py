"""The certificate that xDS is served with: replaced while the server runs, for connections from then on."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    def replace(self, pair: KeyPair) -> None:
        """Takes a new pair; raises CertificateError, and keeps what there is, where that is no good."""
        if pair != self._pair:
            pair.check()
            self._pair = pair

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for one listener, that look here at every handshake."""
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
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)])


def _spki(key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    to_bytes = getattr(key, "public_bytes")  # noqa: B009  (every kind of key has it, no common type says so)
    encoded: bytes = to_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
