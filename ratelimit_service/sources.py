"""Where the configuration comes from, files or the control plane, as one thing to run and to ask how it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.xds_client import XdsClient
from dragoman.xds_credentials import XdsCredentials
from dragoman.xds_protocol import XdsProtocol
from ratelimit_service.config_xds import TYPE_URL, name_of
from ratelimit_service.file_source import FileSource
from ratelimit_service.service import Service

CLUSTER = "dragoman.services/ratelimit"


@dataclass(frozen=True, slots=True)
class Source:
    """`run` keeps the configuration up to date until cancelled; `without` says what is amiss, None for nothing."""

    run: Callable[[], Coroutine[Any, Any, None]]
    without: Callable[[], str | None]


async def file_source(path: Path, service: Service, *, last_good: Path | None, merge_domains: bool = False) -> Source:
    """Loads the files (or the last good copy of them) now, and again whenever they change."""
    source = FileSource(path, service, last_good=last_good, merge_domains=merge_domains)
    await source.load()

    def without() -> str | None:
        return None if service.rejected is None else f"the last change was rejected: {service.rejected}"

    return Source(source.run, without)


async def xds_source(
    address: str,
    node_id: str,
    service: Service,
    *,
    last_good: Path | None,
    credentials: XdsCredentials | None = None,
    protocol: XdsProtocol = "auto",
    node_metadata: Mapping[str, str] | None = None,
) -> Source:
    """Loads the last good state now, and subscribes to the control plane."""
    client = XdsClient(
        address,
        node_id,
        CLUSTER,
        TYPE_URL,
        service.update,
        # A control plane that has no limits sends nothing, and that is a configuration too.
        on_sync=service.begin_empty,
        last_good=last_good,
        credentials=credentials,
        protocol=protocol,
        name_of=name_of,
        node_metadata=node_metadata,
    )
    await client.load()

    def without() -> str | None:
        status = client.status
        if not status.connected:
            return f"the control plane cannot be reached: {status.error or 'not connected yet'}"
        return None if status.rejected is None else f"the last update was rejected: {status.rejected}"

    return Source(client.run, without)
