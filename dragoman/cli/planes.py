"""`dragoman serve`: from settings to the control plane of a folder; loading this takes a while, with all it joins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from dragoman.cli.options import nameserver, state_file, validator
from dragoman.cli.settings import ServeSettings

if TYPE_CHECKING:
    from controlplane.kept.front import Front
    from controlplane.sources.reading import Reading


def plane_of_folder(
    settings: ServeSettings, registry: CollectorRegistry, front: Front | None, begun: Reading | None
) -> ControlPlane:
    """Returns the control plane of a folder, not yet started; a `front` serves already."""
    assert settings.config is not None
    plane = ControlPlane(
        FileSource(settings.config, reading=begun),
        bind=bind,
        listen={settings.xds: Principal("any")},
        nameservers=[nameserver(each) for each in settings.dns],
        insecure_off_loopback=settings.xds_insecure,
        metrics=XdsMetrics(registry) if front is None else None,
        authz=settings.authz,
        ratelimit=settings.ratelimit,
        ratelimit_quota=settings.ratelimit_quota,
        state=state_file(settings),
        front=front,
        validator=validator(settings.validate_with),
    )
    registry.register(plane.engine_metrics)
    registry.register(plane.quarantine.metrics)
    return plane
