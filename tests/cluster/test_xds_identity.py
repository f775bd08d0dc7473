"""Who an Envoy is, and with what xDS is served, with tokens and Secrets of a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.kube.certificates import ensure
from controlplane.kube.errors import ApiError
from controlplane.xds.credentials import KeyPair
from controlplane.xds.identity import Principal, Refusal
from controlplane.xds.tokens import ServiceAccountTokens
from tests.support import cluster_api
from tests.support.cluster import Cluster


class Api:
    """The cluster's API as the product's client gives it."""

    def __init__(self, cluster: Cluster) -> None:
        self._api = cluster.api

    async def get(self, path: str) -> dict[str, Any]:
        return await self._send("GET", path)

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return await self._send("POST", path, document)

    async def replace(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return await self._send("PUT", path, document)

    async def _send(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(self._api.request, method, path, document)
        except cluster_api.ApiError as error:
            reason = "AlreadyExists" if "already exists" in error.message else "Conflict"
            raise ApiError(error.status, reason, error.message) from error


def service_account(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.apply([{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}}])


def token(cluster: Cluster, namespace: str, name: str, audience: str = "dragoman") -> str:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    asked = {"audiences": [audience], "expirationSeconds": 600}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": asked}
    return cluster.api.request("POST", path, request)["status"]["token"]


async def test_a_token_of_the_api_server_tells_the_gateway_and_the_service(cluster: Cluster, namespace: str) -> None:
    for name in ("dragoman-edge", "authz"):
        service_account(cluster, namespace, name)
    tokens = ServiceAccountTokens(Api(cluster).get, services={(namespace, "authz"): "authz"})

    async def who(name: str, audience: str = "dragoman") -> Principal | Refusal:
        shown = token(cluster, namespace, name, audience)
        return await tokens.authenticate([("authorization", f"Bearer {shown}")])

    edge = await who("dragoman-edge")
    assert edge == Principal("gateway", service_account=(namespace, "dragoman-edge")), tokens.fault
    assert await who("authz") == Principal("service", "authz")
    assert await who("dragoman-edge", "somebody.else") == Refusal("the token is not for the audience dragoman")


async def test_replicas_agree_on_one_certificate_and_on_its_successor(cluster: Cluster, namespace: str) -> None:
    api, now = Api(cluster), datetime.now(UTC)

    async def find(when: datetime) -> Any:
        return await ensure(api, namespace=namespace, secret_name="xds", dns_names=("xds.example",), now=when)

    first = await asyncio.gather(*(find(now) for _ in range(3)))
    assert first[0] == first[1] == first[2]
    KeyPair(first[0].chain, first[0].key).check()
    later = await asyncio.gather(*(find(now + timedelta(days=61)) for _ in range(3)))
    assert later[0] == later[1] == later[2]
    assert later[0].authorities == first[0].authorities
    assert later[0].chain != first[0].chain


async def test_an_empty_secret_of_any_type_is_filled(cluster: Cluster, namespace: str) -> None:
    metadata = {"namespace": namespace, "name": "xds", "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    cluster.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}])
    now = datetime.now(UTC)
    made = await ensure(Api(cluster), namespace=namespace, secret_name="xds", dns_names=("xds.example",), now=now)
    again = await ensure(Api(cluster), namespace=namespace, secret_name="xds", dns_names=("xds.example",), now=now)
    assert made == again
