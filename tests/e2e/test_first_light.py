"""A folder of manifests in, a real Envoy serving it, and what changes in the folder in force at once."""

from __future__ import annotations

from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.upstream import Upstream


async def test_a_route_in_a_folder_is_served_and_an_edit_takes_effect(upstream: Upstream) -> None:
    files = {
        "gateway.yaml": [GATEWAY_CLASS, m.gateway(), m.backend("echo", upstream.port)],
        "route.yaml": [m.route("open", [m.to_backend("/open", "echo")])],
    }
    async with Gateway(files) as gateway:
        response = await gateway.answers("/open/x?y=1")
        assert response.json()["path"] == "/open/x?y=1"
        assert (await gateway.get("/other")).status == 404
        gateway.write("route.yaml", [m.route("open", [m.to_backend("/moved", "echo")])])
        await gateway.answers("/moved")
        assert (await gateway.get("/open")).status == 404
        gateway.remove("route.yaml")
        await gateway.answers("/moved", 404)
        assert gateway.findings() == []
