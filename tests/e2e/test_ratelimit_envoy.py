"""The rate limit service judges the requests of a real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.main import Worker, worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.upstream import Upstream
from tests.support.waiting import until

FILTERS = "type.googleapis.com/envoy.extensions.filters"
# A day's window: a test that straddles midnight, UTC, is the one that could fail.
CONFIG = """
domain: shop
descriptors:
  - key: client
    rate_limit: {unit: day, requests_per_unit: 5}
  - key: burst
    rate_limit: {unit: day, requests_per_unit: 24, algorithm: token_bucket, burst: 3}
  - key: watched
    rate_limit: {unit: day, requests_per_unit: 1}
    shadow_mode: true
"""


def bootstrap(*, port: int, upstream: Upstream, service_socket: str, deny: bool = False) -> dict[str, Any]:
    """A listener whose requests are described by the headers x-client, x-burst, x-watched, and by x-big six times."""
    keys = ("client", "burst", "watched", *["big"] * 6)
    limits = [{"actions": [{"request_headers": {"header_name": f"x-{key}", "descriptor_key": key}}]} for key in keys]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "rate_limits": limits}}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    filters = [
        {
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": f"{FILTERS}.http.ratelimit.v3.RateLimit",
                "domain": "shop",
                "timeout": "5s",
                "failure_mode_deny": deny,
                "rate_limit_service": {
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
                },
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"},
        },
    ]
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [
        cluster("upstream", upstream.endpoint),
        {**cluster("ratelimit", {"pipe": {"path": service_socket}}), "typed_extension_protocol_options": http2},
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(params=["ngh2", "grpcio"])
async def service(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    settings = RateLimitSettings(listen=f"unix:{tmp_path}/rl.sock", config=config, drain_s=0.1, engine=request.param)
    async with worker(settings) as serving:
        yield serving


@pytest.fixture
async def port(service: Worker) -> AsyncIterator[int]:
    number = free_port()
    async with Upstream() as upstream:
        given = bootstrap(port=number, upstream=upstream, service_socket=service.address.path)
        async with Envoy(given):
            yield number


async def test_the_sixth_request_is_refused_with_headers_and_a_json_body(port: int) -> None:
    headers = {"x-client": "ada"}
    for left in (4, 3, 2, 1, 0):
        allowed = await fetch(port, headers=headers)
        assert allowed.status == 200
        assert allowed.header("x-ratelimit-limit") == "5, 5;w=86400"
        assert allowed.header("x-ratelimit-remaining") == str(left)
    refused = await fetch(port, headers=headers)
    assert refused.status == 429
    assert refused.all("x-ratelimit-remaining") == ["0"]
    assert refused.header("x-ratelimit-reset") == refused.header("retry-after")
    assert 0 < int(refused.header("retry-after") or 0) <= 86400
    assert refused.all("content-type") == ["application/json"]
    body = json.loads(refused.body)
    assert body["error"] == "rate_limited"
    assert body["message"] == "Too many requests: the limit is 5 per day."
    assert body["retry_after"] == int(refused.header("retry-after") or 0)
    assert (await fetch(port, headers={"x-client": "grace"})).status == 200


async def test_a_request_that_no_limit_applies_to_passes_untouched(port: int) -> None:
    for _ in range(7):
        passed = await fetch(port)
        assert passed.status == 200
        assert passed.header("x-ratelimit-limit") is None


async def test_a_request_too_large_to_be_looked_at_is_refused_and_not_let_through_unseen(port: int) -> None:
    assert (await fetch(port, "/", headers={"x-big": "b" * 30_000})).status == 200
    # Six descriptors of a header that Envoy takes are more than the service reads.
    response = await fetch(port, "/", headers={"x-big": "b" * 50_000})
    assert response.status == 429
    assert json.loads(response.body)["message"] == "The request is too large for its rate limits to be checked."


async def test_a_token_bucket_allows_its_burst_and_tells_when_to_come_back(port: int) -> None:
    statuses = [(await fetch(port, headers={"x-burst": "ada"})).status for _ in range(3)]
    refused = await fetch(port, headers={"x-burst": "ada"})
    assert statuses == [200, 200, 200]
    assert refused.status == 429
    # 24 a day: a token an hour.
    assert 3590 <= int(refused.header("retry-after") or 0) <= 3600
    assert refused.header("x-ratelimit-limit") == "24, 24;w=86400;burst=3"


async def test_a_limit_in_shadow_mode_counts_and_refuses_nothing(port: int, service: Worker) -> None:
    statuses = [(await fetch(port, headers={"x-watched": "ada"})).status for _ in range(3)]
    assert statuses == [200, 200, 200]


async def test_the_strictest_of_several_limits_decides(port: int) -> None:
    headers = {"x-client": "ada", "x-burst": "ada"}
    for left in (2, 1, 0):
        allowed = await fetch(port, headers=headers)
        assert allowed.header("x-ratelimit-remaining") == str(left)
        assert allowed.header("x-ratelimit-limit") == "24, 5;w=86400, 24;w=86400;burst=3"
    assert (await fetch(port, headers=headers)).status == 429


async def test_a_changed_file_is_in_force_at_once_and_a_bad_one_changes_nothing(
    port: int, service: Worker, config: Path
) -> None:
    def write(old: str, new: str) -> None:
        config.write_text(CONFIG.replace(old, new))

    async def limit() -> str:
        response = await fetch(port, headers={"x-client": "eve"})
        return (response.header("x-ratelimit-limit") or "").partition(",")[0]

    assert await limit() == "5"
    write("requests_per_unit: 5}", "requests_per_unit: 5000}")
    await until(lambda: service.service.loads == 2, what="the second load")
    assert await limit() == "5000"

    write("unit: day, requests_per_unit: 5}", "unit: fortnight, requests_per_unit: 7}")
    await until(lambda: service.service.rejected, what="the rejection")
    assert f"{config}:5: descriptors[0].rate_limit.unit: 'fortnight' is none of second" in str(service.service.rejected)
    assert await limit() == "5000"

    write("requests_per_unit: 5}", "requests_per_unit: 6000}")
    await until(lambda: service.service.loads == 3, what="the third load")
    assert await limit() == "6000"
    assert service.service.rejected is None
