"""`dragoman serve --kubernetes`: from settings to a control plane in a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from controlplane.cluster.controlplane import ClusterControlPlane
from controlplane.kube.client import Api
from dragoman.cli.options import cluster_settings, nameserver, state_file, validator
from dragoman.cli.settings import ServeSettings

if TYPE_CHECKING:
    from controlplane.cluster.doorway import Doorway
    from controlplane.kept.front import Front


async def cluster_of(
    settings: ServeSettings,
    registry: CollectorRegistry,
    stack: AsyncExitStack,
    front: Front | None,
    door: Doorway | None,
    *,
    on_failure: Callable[[], None],
) -> ClusterControlPlane:
    """Returns the control plane of the cluster that the settings lead to, not yet started; `stack` ends the client.

    A `front` may serve already, to who comes by the `door`. `on_failure` is called when a part of it has failed for
    good. Raises KubeconfigError where no API server is named.
    """
    api = await stack.enter_async_context(Api.connect(kubeconfig=settings.kubeconfig, context=settings.context))
    cluster = ClusterControlPlane(
        api,
        cluster_settings(settings),
        xds=settings.xds,
        registry=registry,
        insecure=settings.xds_insecure,
        nameservers=[nameserver(each) for each in settings.dns],
        services={"authz": settings.authz, "ratelimit": settings.ratelimit, "quota": settings.ratelimit_quota},
        state=state_file(settings),
        front=front,
        door=door,
        on_failure=on_failure,
        validator=validator(settings.validate_with),
    )
    return cluster
