"""Envoy asks a service on another machine: by TLS, and nobody who is not that service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.translate.dump import to_dict
from controlplane.translate.services import ServiceTls, cluster, endpoints
from controlplane.xds.resources import CLUSTER, ENDPOINT
from ratelimit_service.main import Worker, worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.test_ratelimit_envoy import CONFIG, bootstrap
from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.upstream import Upstream

NAME = "ratelimit.system.svc"


@pytest.fixture(params=["ngh2", "grpcio"])
async def service(authority: Authority, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    (tmp_path / "shop.yaml").write_text(CONFIG)
    certificate, key = authority.leaf(NAME).write(tmp_path)
    settings = RateLimitSettings(
        listen="127.0.0.1:0",
        config=tmp_path / "shop.yaml",
        tls_certificate=certificate,
        tls_private_key=key,
        drain_s=0.1,
        engine=request.param,
    )
    async with worker(settings) as serving:
        yield serving


async def statuses(service: Worker, tls: ServiceTls | None) -> list[int]:
    """What six requests of a client are answered that may make five; where the limiter is not reached, none passes."""
    number = free_port()
    async with Upstream() as upstream:
        given = bootstrap(port=number, upstream=upstream, service_socket="", deny=True)
        addresses = [str(service.address)]
        found = to_dict(CLUSTER, cluster("ratelimit", addresses, tls=tls))
        del found["edsClusterConfig"]
        found |= {"type": "STATIC", "loadAssignment": to_dict(ENDPOINT, endpoints("ratelimit", addresses))}
        given["static_resources"]["clusters"][1] = found
        async with Envoy(given):
            return [(await fetch(number, headers={"x-client": "ada"})).status for _ in range(6)]


async def test_a_service_is_asked_by_tls(service: Worker, authority: Authority) -> None:
    assert await statuses(service, ServiceTls(authority.cert_pem, NAME)) == [200] * 5 + [429]


async def test_a_service_of_another_name_or_authority_or_in_plain_text_is_not_asked(
    service: Worker, authority: Authority
) -> None:
    for tls in (ServiceTls(authority.cert_pem, "other.svc"), ServiceTls(Authority().cert_pem, NAME), None):
        assert await statuses(service, tls) == [500] * 6
