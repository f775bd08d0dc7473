"""A certificate authority for tests: leaf certificates for any names, valid, expired, or of somebody else's key."""

from __future__ import annotations

import base64
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate (chain) and its private key, as PEM."""

    cert_pem: str
    key_pem: str

    def secret(self, namespace: str, name: str) -> dict[str, Any]:
        """Returns the Kubernetes Secret of type kubernetes.io/tls that holds it."""
        data = {"tls.crt": self.cert_pem, "tls.key": self.key_pem}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": namespace, "name": name},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
        }

    def write(self, folder: Path, stem: str = "tls") -> tuple[Path, Path]:
        """Writes `STEM.crt` and `STEM.key`; returns their paths."""
        cert, key = folder / f"{stem}.crt", folder / f"{stem}.key"
        cert.write_text(self.cert_pem)
        key.write_text(self.key_pem)
        return cert, key

    def server_context(self, folder: Path, *, client_ca: Authority | None = None) -> ssl.SSLContext:
        """Returns the TLS context of a server; `folder` takes the files. With `client_ca`, clients must show one."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.write(folder, f"server-{id(self)}"))
        if client_ca is not None:
            context.load_verify_locations(cadata=client_ca.cert_pem)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """A root with a key of its own; leaves are made by `leaf`."""

    def __init__(self, name: str = "Dragoman test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def cert_pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def leaf(
        self, *names: str, valid_for: timedelta = timedelta(days=30), starts_in: timedelta | None = None
    ) -> Certificate:
        """Returns a certificate for DNS names, IP addresses and URIs (`spiffe://…`).

        A negative `valid_for` makes it expired; `starts_in` makes it not valid yet.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        start = datetime.now(UTC) + (starts_in or timedelta(days=-1) + min(valid_for, timedelta()))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(max(datetime.now(UTC), start) + valid_for)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(certificate.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key))

    def client_context(self, *, show: Certificate | None = None, folder: Path | None = None) -> ssl.SSLContext:
        """Returns the TLS context of a client that trusts this authority alone and shows `show` (files in `folder`)."""
        context = ssl.create_default_context(cadata=self.cert_pem)
        if show is not None:
            assert folder is not None, "a client certificate needs a folder for its files"
            context.load_cert_chain(*show.write(folder, f"client-{id(show)}"))
        return context


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
