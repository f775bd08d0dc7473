# pyright: standard, reportAttributeAccessIssue=false
"""What the settings say reaches the parts that they are about."""

from __future__ import annotations

from pathlib import Path

from envoy.service.discovery.v3 import discovery_pb2

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.config_xds import TYPE_URL
from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.ports import free_port


def kept(folder: Path, *keys: str) -> None:
    """Leaves a last good state of one domain that several resources give parts of."""
    state = discovery_pb2.DeltaDiscoveryResponse(type_url=TYPE_URL)
    for key in keys:
        config = rls_conf_pb2.RateLimitConfig(name=key, domain="shop")
        limit = config.descriptors.add(key=key).rate_limit
        limit.unit, limit.requests_per_unit = rls_conf_pb2.MINUTE, 5
        entry = state.resources.add(name=key, version="1")
        entry.resource.type_url = TYPE_URL
        entry.resource.value = config.SerializeToString()
    (folder / "ratelimit-xds.pb").write_bytes(state.SerializeToString())


async def test_resources_may_give_parts_of_one_domain_where_domains_are_merged(tmp_path: Path) -> None:
    kept(tmp_path, "a", "b")
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/grpc", xds=f"127.0.0.1:{free_port()}", merge_domains=True, state=tmp_path
    )
    async with worker(settings) as running:
        assert {rule.path for rule in running.service.config.rules()} == {"a", "b"}
