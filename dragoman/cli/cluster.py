"""`dragoman serve --kubernetes`: from settings to a control plane in a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from controlplane.cluster.controlplane import ClusterControlPlane
from controlplane.cluster.settings import ClusterSettings, Identity
from controlplane.kube.client import Api
from dragoman.cli.options import nameserver, state_file
from dragoman.cli.settings import ServeSettings


async def cluster_of(
    settings: ServeSettings, registry: CollectorRegistry, stack: AsyncExitStack, *, on_failure: Callable[[], None]
) -> ClusterControlPlane:
    """Returns the control plane of the cluster that the settings lead to, not yet started; `stack` ends the client.

    `on_failure` is called when a part of it has failed for good. Raises KubeconfigError where no API server is named.
    """
    api = await stack.enter_async_context(Api.connect(kubeconfig=settings.kubeconfig, context=settings.context))
    cluster = ClusterControlPlane(
        api,
        cluster_settings(settings),
        xds=settings.xds,
        registry=registry,
        insecure=settings.xds_insecure,
        nameservers=[nameserver(each) for each in settings.dns],
        services={"authz": settings.authz, "ratelimit": settings.ratelimit},
        state=state_file(settings),
        on_failure=on_failure,
    )
    return cluster


def cluster_settings(settings: ServeSettings) -> ClusterSettings:
    """Returns what the parts that speak with Kubernetes are told; who this is comes from the pod's environment."""
    secrets = [each.partition("=") for each in settings.service_secret]
    accounts: dict[str, tuple[str, str]] = {}
    for each in settings.service_account:
        service, _, account = each.partition("=")
        namespace, _, name = account.partition("/")
        accounts[service] = (namespace, name)
    identity = Identity(
        name=os.environ.get("POD_NAME") or socket.gethostname(),
        namespace=os.environ.get("POD_NAMESPACE") or "default",
        address=os.environ.get("POD_IP") or "",
    )
    return ClusterSettings(
        identity=identity,
        namespaces=settings.namespace,
        lease=settings.lease,
        secret=None if settings.xds_insecure else settings.xds_secret,
        certificate=settings.xds_certificate,
        xds_address=settings.xds_address,
        image=settings.image,
        envoy_image=settings.envoy_image,
        provisioning=settings.provisioning,
        token=settings.xds_token,
        service_secrets={service: name for service, _, name in secrets},
        service_accounts=accounts,
    )
