"""The control plane's certificate in Secrets: made once for all replicas, renewed in time, and left alone elsewhere."""

from __future__ import annotations

import asyncio
import base64
import copy
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from controlplane.kube.certificates import Certificates, CertificatesError, ensure, keep
from controlplane.kube.errors import ApiError
from controlplane.xds.credentials import KeyPair
from tests.support.certificates import Authority
from tests.support.waiting import until

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("dragoman.system.svc", "dragoman.system.svc.cluster.local")


class Secrets:
    """The API server's Secrets: names that are taken and versions that are old are refused."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.fault: ApiError | None = None
        self._version = 0

    async def get(self, path: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        if path not in self.held:
            raise ApiError(404, "NotFound", "no such Secret")
        return copy.deepcopy(self.held[path])

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        full = f"{path}/{document['metadata']['name']}"
        if full in self.held:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self._store(full, document)

    async def replace(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.held[path]["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "changed meanwhile")
        return self._store(path, document)

    def _store(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        self.writes.append(path.rpartition("/")[2])
        stored = copy.deepcopy(dict(document))
        stored["metadata"]["resourceVersion"] = str(self._version)
        self.held[path] = stored
        return copy.deepcopy(stored)


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


async def certificates(secrets: Secrets, *, now: datetime = NOW, **options: Any) -> Certificates:
    values = {"namespace": "system", "secret_name": "dragoman-xds", "dns_names": NAMES, **options}
    return await ensure(secrets, now=now, **values)


def leaf(found: Certificates) -> x509.Certificate:
    KeyPair(found.chain, found.key).check()
    return x509.load_pem_x509_certificate(found.chain)


def trusts(authorities: bytes, found: Certificates) -> bool:
    for authority in x509.load_pem_x509_certificates(authorities):
        try:
            leaf(found).verify_directly_issued_by(authority)
        except Exception:
            continue
        return True
    return False


async def test_what_is_not_there_is_made_and_then_kept(secrets: Secrets) -> None:
    made = await certificates(secrets)
    assert trusts(made.authorities, made)
    assert await certificates(secrets, now=NOW + timedelta(days=59)) == made
    assert sorted(secrets.writes) == ["dragoman-xds", "dragoman-xds-ca"]
    secret = secrets.held["/api/v1/namespaces/system/secrets/dragoman-xds"]
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert made.key.decode() not in repr(made)


async def test_openssl_takes_it_for_a_server_of_its_names(secrets: Secrets, tmp_path: Path) -> None:
    made = await certificates(secrets, now=datetime.now(UTC))
    (tmp_path / "crt").write_bytes(made.chain)
    (tmp_path / "key").write_bytes(made.key)
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(cadata=made.authorities.decode()),
    )
    server.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        for name in NAMES:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
            writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="other.svc")


async def test_replicas_that_start_together_end_up_with_one_certificate(secrets: Secrets) -> None:
    found = await asyncio.gather(*(certificates(secrets) for _ in range(3)))
    assert found[0] == found[1] == found[2]
    assert trusts(found[0].authorities, found[0])
    assert sorted(secrets.writes) == ["dragoman-xds", "dragoman-xds-ca"]


async def test_replicas_renew_once_and_in_time(secrets: Secrets) -> None:
    made = await certificates(secrets)
    later = NOW + timedelta(days=61)
    found = await asyncio.gather(*(certificates(secrets, now=later) for _ in range(3)))
    assert found[0] == found[1] == found[2]
    assert found[0] != made
    assert found[0].authorities == made.authorities
    assert trusts(made.authorities, found[0])
    assert leaf(found[0]).not_valid_after_utc == later + timedelta(days=90)
    assert secrets.writes.count("dragoman-xds") == 2


async def test_a_name_that_is_new_is_certified(secrets: Secrets) -> None:
    await certificates(secrets)
    found = await certificates(secrets, dns_names=(*NAMES, "localhost"))
    names = leaf(found).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)


async def test_who_trusts_an_authority_trusts_what_comes_after_it_is_renewed(secrets: Secrets) -> None:
    made = await certificates(secrets)
    later = NOW + timedelta(days=3350)
    found = await certificates(secrets, now=later)
    assert trusts(made.authorities, found)
    assert len(x509.load_pem_x509_certificates(found.authorities)) == 2
    over = await certificates(secrets, now=later + timedelta(days=301))
    assert len(x509.load_pem_x509_certificates(over.authorities)) == 1
    assert trusts(over.authorities, over)


async def test_an_authority_that_was_replaced_is_trusted_while_its_leaf_is_served(secrets: Secrets) -> None:
    made = await certificates(secrets)
    del secrets.held["/api/v1/namespaces/system/secrets/dragoman-xds-ca"]
    between = await certificates(secrets, now=NOW + timedelta(days=1))
    assert between.chain == made.chain
    assert len(x509.load_pem_x509_certificates(between.authorities)) == 2
    after = await certificates(secrets, now=NOW + timedelta(days=61))
    assert not trusts(made.authorities, after)
    assert trusts(between.authorities, after)


async def test_several_leaves_share_an_authority(secrets: Secrets) -> None:
    made = await certificates(secrets)
    other = await certificates(
        secrets, secret_name="dragoman-authz", dns_names=("authz.svc",), authority_name="dragoman-xds-ca"
    )
    assert trusts(made.authorities, other)
    assert sorted(secrets.writes) == ["dragoman-authz", "dragoman-xds", "dragoman-xds-ca"]


async def test_a_secret_of_somebody_else_is_read_and_left_alone(secrets: Secrets) -> None:
    authority = Authority()
    expired = authority.leaf("other", valid_for=timedelta(days=-1))
    secret = expired.secret("system", "dragoman-xds")
    secret["data"]["ca.crt"] = base64.b64encode(authority.cert_pem.encode()).decode()
    secret["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "cert-manager"}
    await secrets.create("/api/v1/namespaces/system/secrets", secret)
    found = await certificates(secrets)
    assert found == Certificates(expired.cert_pem.encode(), expired.key_pem.encode(), authority.cert_pem.encode())
    assert secrets.writes == ["dragoman-xds"]


async def test_empty_secrets_that_a_chart_put_there_are_filled_and_renewed(secrets: Secrets) -> None:
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    for name in ("dragoman-xds", "dragoman-xds-ca"):
        metadata = {"name": name, "labels": labels}
        await secrets.create("/api/v1/namespaces/system/secrets", {"metadata": metadata, "type": "Opaque"})
    found = await asyncio.gather(*(certificates(secrets) for _ in range(3)))
    assert found[0] == found[1] == found[2]
    assert trusts(found[0].authorities, found[0])
    stored = secrets.held["/api/v1/namespaces/system/secrets/dragoman-xds"]
    assert (stored["type"], stored["metadata"]["labels"]) == ("Opaque", labels)
    assert await certificates(secrets, now=NOW + timedelta(days=61)) != found[0]


async def test_a_secret_that_lacks_something_is_said_to(secrets: Secrets) -> None:
    await secrets.create("/api/v1/namespaces/system/secrets", Authority().leaf("a").secret("system", "dragoman-xds"))
    with pytest.raises(CertificatesError, match=r"lacks ca\.crt"):
        await certificates(secrets)


async def test_where_somebody_else_is_to_make_it_none_is_made(secrets: Secrets) -> None:
    with pytest.raises(CertificatesError, match="not there yet"):
        await certificates(secrets, make=False)
    assert not secrets.writes


async def test_an_authority_that_cannot_be_used_is_an_error_that_tells_nothing_of_its_key(secrets: Secrets) -> None:
    await certificates(secrets)
    path = "/api/v1/namespaces/system/secrets/dragoman-xds-ca"
    secrets.held[path]["data"]["tls.key"] = base64.b64encode(Authority().leaf("a").key_pem.encode()).decode()
    with pytest.raises(CertificatesError, match="not for its key"):
        await certificates(secrets)


async def test_a_change_is_told_and_an_outage_is_lived_through(secrets: Secrets) -> None:
    now = NOW
    told: list[Certificates] = []

    reads = 0

    async def read() -> Certificates:
        nonlocal reads
        reads += 1
        return await certificates(secrets, now=now)

    first = await read()
    keeping = asyncio.create_task(keep(read, told.append, first=first, poll_s=0.001))
    try:
        secrets.fault = ApiError(0, "Unreachable", "down")
        now = NOW + timedelta(days=61)
        await until(lambda: reads > 3, what="some reads")
        assert not told
        secrets.fault = None
        await until(lambda: bool(told), what="the renewed certificate")
        enough = reads + 3
        await until(lambda: reads > enough, what="some more reads")
        assert len(told) == 1
        assert told[0] != first
    finally:
        keeping.cancel()
