"""A certificate is replaced while connections are open: they stay, new ones see the new one, and nothing fails."""

from __future__ import annotations

from tests.support.certificates import Authority, Certificate
from tests.support.cluster import Cluster
from tests.support.cluster_scene import HTTP, Scene, condition, gateway
from tests.support.traffic import Target
from tests.support.waiting import until

HOST = "shop.example.com"


def https(secret: str) -> dict[str, object]:
    tls = {"mode": "Terminate", "certificateRefs": [{"name": secret}]}
    return {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": HOST, "tls": tls}


async def test_a_secret_is_rotated_while_connections_are_open(
    product: Cluster, namespace: str, authority: Authority
) -> None:
    first, second = authority.leaf(HOST), authority.leaf(HOST)
    product.apply([first.secret(namespace, "cert")])
    scene = await Scene.make(product, namespace, HTTP, https("cert"))
    tls = authority.client_context()
    await scene.answers("/steady", port=443, host=HOST, tls=tls)
    network = product.network
    target = Target("/steady", host=HOST)
    async with (
        await network.connect(443, address=scene.address, tls=tls, sni=HOST) as old,
        scene.traffic(target, port=443, trust_pem=authority.cert_pem, fresh_every=10) as traffic,
    ):
        assert serial(old.certificate) == number(first)
        product.apply([second.secret(namespace, "cert")])

        async def seen() -> bool:
            async with await network.connect(443, address=scene.address, tls=tls, sni=HOST) as new:
                return serial(new.certificate) == number(second)

        await until(seen, what="the new certificate", within_s=20)
        assert (await old.request("/steady", host=HOST)).status == 200
        await traffic.goes_on(200)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_a_secret_that_goes_and_returns_is_told_of_and_leaves_the_other_listener_alone(
    product: Cluster, namespace: str, authority: Authority
) -> None:
    secret = authority.leaf(HOST).secret(namespace, "cert")
    product.apply([secret])
    scene = await Scene.make(product, namespace, HTTP, https("cert"))
    async with scene.traffic() as traffic:
        product.delete(secret)
        product.wait_for(gateway(namespace), lambda found: resolved(found) == ("False", "InvalidCertificateRef"))
        product.apply([secret])
        product.wait_for(gateway(namespace), lambda found: resolved(found)[0] == "True")
        await scene.answers("/steady", port=443, host=HOST, tls=authority.client_context())
        await traffic.stop()
    traffic.assert_none_failed()


def resolved(found: dict[str, object]) -> tuple[str, str]:
    status = found["status"]
    assert isinstance(status, dict)
    listener = next(each for each in status["listeners"] if each["name"] == "https")
    told = condition(listener, "ResolvedRefs")
    return told.get("status", ""), told.get("reason", "")


def serial(shown: dict[str, object] | None) -> int:
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def number(certificate: Certificate) -> int:
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.cert_pem.encode()).serial_number
