"""Issues certificates: an authority of our own, and leaves that it signs. Pure, but for the keys that are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LASTS: Final = timedelta(days=3650)
AUTHORITY_RENEWED: Final = timedelta(days=365)
LEAF_LASTS: Final = timedelta(days=90)
LEAF_RENEWED: Final = timedelta(days=30)
"""How long before its end a certificate is replaced."""

_SKEW: Final = timedelta(hours=1)
_MAX_AUTHORITIES: Final = 8


class IssueError(ValueError):
    """An authority cannot be used; the message holds nothing of its key."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def new_authority(now: datetime) -> Issued:
    """Returns a new authority."""
    return _authority(ec.generate_private_key(ec.SECP256R1()), now)


def renew_authority(authority: Issued, now: datetime) -> Issued | None:
    """Returns the authority with a later end, where its own is near; raises IssueError where it cannot be read.

    Name and key stay: who trusts either certificate trusts what the key signs, so nobody has to be told first.
    """
    certificate, key = _load(authority)
    if certificate.not_valid_after_utc - now > AUTHORITY_RENEWED:
        return None
    return _authority(key, now)


def new_leaf(authority: Issued, dns_names: Sequence[str], now: datetime) -> Issued:
    """Returns a new certificate for a server of these names; raises IssueError."""
    issuer, issuer_key = _load(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(key, now, min(now + LEAF_LASTS, issuer.not_valid_after_utc))
    certificate = (
        builder.subject_name(_name(dns_names[0][:64]))
        .issuer_name(issuer.subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Issued(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def is_for(chain: bytes, key: bytes, dns_names: Sequence[str], authorities: bytes, now: datetime) -> bool:
    """Whether a leaf serves all these names, for long enough, with this key, and is of one of the authorities."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        own = load_pem_private_key(key, None).public_key()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuers = x509.load_pem_x509_certificates(authorities)
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound):
        return False
    return (
        own == leaf.public_key()
        and set(names.get_values_for_type(x509.DNSName)) >= set(dns_names)
        and leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc - LEAF_RENEWED
        and any(_is_signed_by(leaf, issuer) for issuer in issuers)
    )


def bundle(authorities: Iterable[bytes], now: datetime) -> bytes:
    """Returns the certificates in these PEM texts that last, each once, the first ones first."""
    kept: dict[bytes, None] = {}
    for text in authorities:
        for certificate in _certificates(text):
            if certificate.not_valid_after_utc > now:
                kept[certificate.public_bytes(Encoding.PEM)] = None
    return b"".join(list(kept)[:_MAX_AUTHORITIES])


def _certificates(text: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
        return []


def _is_signed_by(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(authority: Issued) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        key = load_pem_private_key(authority.key, None)
    except (ValueError, TypeError) as error:
        raise IssueError("the authority's certificate or key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise IssueError("the authority's certificate is not for its key, or that is not an elliptic curve's")
    return certificate, key


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> Issued:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Of the key, so that authorities with different keys are never taken for one another.
    name = _name(f"Dragoman {identifier.digest.hex()[:16]}")
    certificate = (
        _builder(key, now, now + AUTHORITY_LASTS)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def _builder(key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of nodes differ a little.
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
