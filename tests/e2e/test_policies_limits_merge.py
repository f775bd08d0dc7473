"""Limits of a Gateway and of its routes together, on all its listeners, through a real Envoy and the limiter."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from tests.e2e.policy_limits import exhaust, limit, shared, statuses
from tests.e2e.policy_manifests import OURS, limits, route, routes, target
from tests.e2e.policy_services import ratelimit
from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.http import Connection
from tests.support.upstream import Upstream

OF_GATEWAY = target("Gateway", "edge")


def merging(name: str, how: str, rate_limit: Any, *targets: Any) -> m.Manifest:
    found = limits(name, rate_limit, *targets)
    found["spec"]["mergeType"] = how
    return found


async def test_a_route_adds_its_limits_to_those_of_the_gateway_or_puts_them_in_their_place(upstream: Upstream) -> None:
    post = {"methods": [{"value": "POST"}]}
    of_gateway = {
        **shared(limit(6, "Day", shared=True), limit(4, "Day")),
        "local": {"rules": [limit(1, "Hour", post)]},
    }
    files = {
        "a.yaml": [
            *routes(upstream, "plain", "strategic", "json", "replace", "free"),
            limits("edge", {**of_gateway, "type": None}, OF_GATEWAY),
            merging("strategic", "StrategicMerge", shared(limit(2, "Day"))),
            merging("json", "JSONMerge", shared(limit(3, "Day"))),
            merging("replace", "Replace", shared(limit(5, "Day"))),
        ]
    }
    del files["a.yaml"][-4]["spec"]["rateLimit"]["type"]
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/json")
        assert gateway.findings() == []
        # Six in all for the two that count with the Gateway; of these two for the one.
        await exhaust(gateway, "/strategic", 2)
        # The refused request counted, too: all rules that match count.
        remaining = await gateway.get("/plain")
        assert remaining.header("x-ratelimit-remaining") in ("2", "1", "0")
        await gateway.answers("/plain", 429)
        assert (await gateway.get("/strategic")).status == 429

        await gateway.answers("/json", 429)
        posts = [(await gateway.get(path, method="POST")).status for path in ("/json", "/replace", "/replace")]
        assert posts[0] == 429
        assert posts[1:] == [200, 200]
        await exhaust(gateway, "/replace", 5 - 2)


async def test_a_gateways_limit_holds_on_each_listener_and_each_kind_of_route(upstream: Upstream) -> None:
    authority = Authority()
    everywhere = {"namespaces": {"from": "All"}}
    tls = {"certificateRefs": [{"name": "edge"}]}
    listeners: list[Any] = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "other", "port": 8080, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "a.example.com", "tls": tls},
    ]
    edge = m.gateway(listeners=listeners)
    edge["spec"]["allowedListeners"] = everywhere
    of_set = {"name": "set", "port": 9090, "protocol": "HTTP"}
    listener_set = m.manifest(
        m.GATEWAY_API, "ListenerSet", "more", {"parentRef": {"name": "edge"}, "listeners": [of_set]}
    )
    ref = {"group": "dragoman.dev", "kind": "Backend", "name": "echo"}
    of_more = m.manifest(
        m.GATEWAY_API,
        "HTTPRoute",
        "of-set",
        {
            "parentRefs": [{"kind": "ListenerSet", "name": "more"}],
            "rules": [{"matches": [{"path": {"value": "/set"}}], "backendRefs": [ref]}],
        },
    )
    calls = m.manifest(
        m.GATEWAY_API,
        "GRPCRoute",
        "calls",
        {
            "parentRefs": [{"name": "edge"}],
            "hostnames": ["calls.example.com"],
            "rules": [{"matches": [{"method": {"service": "s.S"}}], "backendRefs": [ref]}],
        },
    )
    files = {
        "a.yaml": [
            GATEWAY_CLASS,
            edge,
            listener_set,
            authority.leaf("a.example.com").secret("demo", "edge"),
            m.manifest(
                OURS, "Backend", "echo", {"endpoints": [{"ip": {"address": "127.0.0.1", "port": upstream.port}}]}
            ),
            m.route("plain", route("plain", "/plain")["spec"]["rules"], hostnames=["example.com", "a.example.com"]),
            of_more,
            calls,
            limits("edge", shared(limit(0, "Day", shared=True)), OF_GATEWAY),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        for port, path in ((80, "/plain"), (8080, "/plain"), (9090, "/set")):
            await gateway.answers(path, 429, port=port)
        context = authority.client_context()
        async with await Connection.to(gateway.port(443), tls=context, sni="a.example.com") as connection:
            assert (await connection.request("/plain", host="a.example.com")).status == 429
        options = [("grpc.default_authority", "calls.example.com")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port(80)}", options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/s.S/M")(b"", timeout=10)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_local_limits_hold_on_redirects_where_those_of_the_service_do_not(upstream: Upstream) -> None:
    moved = {
        "filters": [
            {
                "type": "RequestRedirect",
                "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}},
            }
        ]
    }
    redirects = [{"matches": [{"path": {"value": path}}], **moved} for path in ("/local", "/global")]
    files = {
        "a.yaml": [
            *routes(upstream, "free"),
            *(m.route(each["matches"][0]["path"]["value"].strip("/"), [each]) for each in redirects),
            limits("local", {"local": {"rules": [limit(1, "Hour")]}}),
            limits("global", shared(limit(0, "Day"))),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        (found,) = gateway.findings()
        assert "BackendTrafficPolicy demo/global" in found
        assert "redirect" in found
        assert await statuses(gateway, "/local", 2) == [302, 429]
        assert await statuses(gateway, "/global", 2) == [302, 302]


async def test_a_routes_limit_that_is_tried_out_takes_nothing_from_that_of_its_gateway(upstream: Upstream) -> None:
    files = {
        "a.yaml": [
            *routes(upstream, "tried", "free"),
            limits("edge", {"local": {"rules": [limit(2, "Hour")]}}, OF_GATEWAY),
            merging("tried", "StrategicMerge", {"local": {"rules": [limit(1, "Hour", shadowMode=True)]}}),
        ]
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/free")
        assert await statuses(gateway, "/tried", 3) == [200, 200, 429]
