"""Faults of certificates, keys and authorities: what a TLS stack would refuse, or clients would not trust."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from controlplane.api.core import ConfigMap, Secret
from controlplane.api.faults import Fault, join_path
from controlplane.compile.trust import CA_KEY, ca_of, is_certificate

_CHAIN, _KEY, _CA = (join_path("data", name) for name in ("tls.crt", "tls.key", CA_KEY))
_MIN_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def check_certificate(secret: Secret, now: datetime) -> Iterator[Fault]:
    """Yields what is wrong with the chain and the key of a Secret of type kubernetes.io/tls."""
    for name in ("tls.crt", "tls.key"):
        if name not in secret.data:
            yield Fault("data", f"a Secret of type {secret.type} needs {name}")
            return
    try:
        chain = x509.load_pem_x509_certificates(secret.data["tls.crt"])
    except ValueError:
        yield Fault(_CHAIN, "expected a certificate chain in PEM")
        return
    try:
        key = load_pem_private_key(secret.data["tls.key"], password=None)
    except (ValueError, TypeError):
        yield Fault(_KEY, "expected a private key in PEM, without a passphrase")
        return
    leaf = chain[0]
    if leaf.not_valid_after_utc <= now:
        yield Fault(_CHAIN, f"the certificate expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    if not _is_served(key):
        kinds = f"RSA of at least {_MIN_RSA_BITS} bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
        yield Fault(_KEY, f"expected a key of a kind that can be served: {kinds}")
        return
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != leaf.public_key().public_bytes(*spki):
        yield Fault(_KEY, "the private key does not belong to the certificate in tls.crt")


def check_authorities(source: ConfigMap | Secret) -> Iterator[Fault]:
    """Yields what is wrong with the authorities that a ConfigMap or Secret holds, if it holds any."""
    pem = ca_of(source)
    if pem is not None and not is_certificate(pem):
        yield Fault(_CA, "expected certificates in PEM")


def _is_served(key: object) -> bool:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= _MIN_RSA_BITS
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return True
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
