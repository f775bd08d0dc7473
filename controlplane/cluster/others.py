"""The other replicas that there should be: by the EndpointSlices of the Service through which Envoys find them all."""

from __future__ import annotations

import logging
from typing import Any

from controlplane.api.meta import DISCOVERY_GROUP
from controlplane.cluster.services import parse_service
from controlplane.cluster.settings import ClusterSettings
from controlplane.kube.client import Api
from controlplane.kube.errors import ApiError
from controlplane.kube.paths import path_of
from controlplane.pipeline.objects import SERVICE_NAME

_log = logging.getLogger(__name__)


async def others(api: Api, settings: ClusterSettings) -> frozenset[str] | None:
    """Returns the addresses of the other replicas, ready or not; None where that cannot be told."""
    service = parse_service(settings.xds_address or "")
    if service is None:
        return None
    path = path_of(DISCOVERY_GROUP, "v1", "endpointslices", service.key.namespace)
    try:
        found = await api.get(path, params={"labelSelector": f"{SERVICE_NAME}={service.key.name}"})
    except (ApiError, TimeoutError) as error:
        _log.info("what other replicas there are cannot be told: %s", error)
        return None
    every: list[dict[str, Any]] = [each for piece in found["items"] for each in piece.get("endpoints") or ()]
    staying = (each for each in every if not _is_going(each))
    return frozenset(address for each in staying for address in each["addresses"]) - {settings.identity.address}


def _is_going(endpoint: dict[str, Any]) -> bool:
    conditions: dict[str, Any] = endpoint.get("conditions") or {}
    return bool(conditions.get("terminating"))


def listens_at(identity_address: str, xds: str) -> str:
    """Returns where a replica is reached by the others (HOST:PORT); empty where it does not know its own address."""
    port = xds.rpartition(":")[2]
    if not identity_address or xds.startswith("unix:"):
        return ""
    host = f"[{identity_address}]" if ":" in identity_address else identity_address
    return f"{host}:{port}"
