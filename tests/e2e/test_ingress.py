"""Ingresses in a folder, seen through a real Envoy: hosts, paths, certificates, and what annotations become."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.http import Connection, Response
from tests.support.ingress import backend, carrier, ingress, ingress_class, path, rule
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


def service(name: str, port: int) -> list[m.Manifest]:
    """A Service with one port, called `web`, and its only endpoint."""
    made = m.manifest("v1", "Service", name, {"ports": [{"name": "web", "port": 80}]})
    piece = m.endpoint_slice(name, "127.0.0.1")
    return [made, {**piece, "ports": [{"name": "web", "port": port}]}]


INGRESSES: list[Any] = [
    ingress(
        "paths",
        rule(
            "paths.example.com",
            path("/exact", type_="Exact", port="web"),
            path("/prefix/"),
            path("/like", type_="ImplementationSpecific"),
            path("/next", "next", port="web"),
            path("/gone", "gone"),
        ),
        rule("*.wild.example.com", path("/")),
    ),
    ingress("rest", defaultBackend=backend("next")),
    ingress(
        "secure",
        rule("secure.example.com", path("/")),
        tls=[{"hosts": ["secure.example.com", "open.example.com"], "secretName": "cert"}],
        created="2020-01-01T00:00:00Z",
    ),
    # Its host has a certificate of another Ingress, and it wants no redirect.
    ingress(
        "secure-too",
        rule("secure.example.com", path("/too", "next")),
        annotations={"ssl-redirect": "false"},
        created="2021-01-01T00:00:00Z",
    ),
    ingress(
        "cut",
        rule("cut.example.com", path("/api(/|$)(.*)", type_="ImplementationSpecific")),
        annotations={"rewrite-target": "/$2"},
    ),
    ingress(
        "new-root",
        rule("new.example.com", path("/(.*)", type_="ImplementationSpecific")),
        annotations={"rewrite-target": "/new/$1"},
    ),
    ingress("fixed", rule("fixed.example.com", path("/old")), annotations={"rewrite-target": "/fixed"}),
    ingress(
        "swapped",
        rule("swap.example.com", path("/([a-z]+)/([0-9]+)", type_="ImplementationSpecific")),
        annotations={"rewrite-target": "/$2/$1"},
    ),
    ingress(
        "regex",
        rule("regex.example.com", path("/item/[0-9]+$", type_="ImplementationSpecific")),
        annotations={"use-regex": "true", "app-root": "/item/1"},
    ),
    ingress("slow", rule("slow.example.com", path("/", "slow")), annotations={"proxy-read-timeout": "1"}),
    ingress("inside", rule("inside.example.com", path("/")), annotations={"whitelist-source-range": "127.0.0.0/8"}),
    ingress("outside", rule("outside.example.com", path("/")), annotations={"whitelist-source-range": "10.0.0.0/8"}),
    ingress("denied", rule("denied.example.com", path("/")), annotations={"denylist-source-range": "127.0.0.1"}),
    ingress("auth", rule("auth.example.com", path("/")), annotations={"auth-url": "http://auth.example.com"}),
    ingress(
        "cors",
        rule("cors.example.com", path("/")),
        annotations={"enable-cors": "true", "cors-allow-origin": "https://a.example.com", "cors-max-age": "60"},
    ),
    ingress("limited", rule("limited.example.com", path("/")), annotations={"limit-rpm": "3"}),
    ingress(
        "moved",
        rule("moved.example.com", path("/")),
        annotations={"permanent-redirect": "https://new.example.com/here"},
    ),
    ingress(
        "away",
        rule("away.example.com", path("/")),
        annotations={"temporal-redirect": "https://b.example.com$request_uri"},
    ),
    ingress("main", rule("canary.example.com", path("/"))),
    ingress(
        "canary",
        rule("canary.example.com", path("/", "next")),
        annotations={"canary": "true", "canary-weight": "0", "canary-by-header": "x-canary"},
    ),
    ingress("share", rule("share.example.com", path("/"))),
    ingress(
        "share-canary",
        rule("share.example.com", path("/", "next")),
        annotations={"canary": "true", "canary-weight": "100"},
    ),
    ingress("tls-backend", rule("tls.example.com", path("/", "tls")), annotations={"backend-protocol": "HTTPS"}),
    ingress("theirs", rule("theirs.example.com", path("/mine")), class_name="other"),
]


@dataclass
class Scene:
    gateway: Gateway
    tls: ssl.SSLContext

    async def get(self, host: str, path: str = "/", **more: Any) -> Response:
        return await self.gateway.get(path, host=host, **more)

    async def secure(self, host: str, path: str = "/") -> Response:
        async with await Connection.to(self.gateway.port(443), tls=self.tls, sni=host) as connection:
            return await connection.request(path, host=host)

    async def backend(self, host: str, path: str = "/", **more: Any) -> str:
        """Which backend answers, and the path that it sees; else the status."""
        response = await self.get(host, path, **more)
        if response.status != 200:
            return str(response.status)
        seen = response.json()
        return f"{seen['name']} {seen['path']}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    authority = Authority()
    certificate = authority.leaf("secure.example.com", "open.example.com")
    folder: Path = tmp_path_factory.mktemp("tls")
    context = authority.leaf("nobody.example.com").server_context(folder)
    async with (
        Upstream("echo") as echo,
        Upstream("next") as following,
        Upstream("tls", tls=context) as tls,
        Upstream("slow") as slow,
    ):
        slow.be_slow(3.0)
        services = [each for upstream in (echo, following, tls, slow) for each in service(upstream.name, upstream.port)]
        classes = [GATEWAY_CLASS, carrier(), ingress_class(), ingress_class("other", controller="example.com/other")]
        documents = [*classes, certificate.secret("demo", "cert"), *services, *INGRESSES]
        async with Gateway({"all.yaml": documents}) as started:
            yield Scene(started, authority.client_context())


@pytest.mark.parametrize(
    ("host", "asked", "answer"),
    [
        ("paths.example.com", "/exact", "echo /exact"),
        ("paths.example.com", "/exact/more", "next /exact/more"),
        ("paths.example.com", "/prefix", "echo /prefix"),
        ("paths.example.com", "/prefix/more", "echo /prefix/more"),
        ("paths.example.com", "/prefixes", "next /prefixes"),
        ("paths.example.com", "/like/it", "echo /like/it"),
        ("paths.example.com", "/next", "next /next"),
        ("paths.example.com", "/gone", "500"),
        ("a.wild.example.com", "/any", "echo /any"),
        ("wild.example.com", "/any", "next /any"),
        ("theirs.example.com", "/mine", "next /mine"),
    ],
)
async def test_hosts_and_paths_lead_to_their_services_and_the_rest_to_the_default_backend(
    scene: Scene, host: str, asked: str, answer: str
) -> None:
    assert await scene.backend(host, asked) == answer


async def test_a_host_with_a_certificate_is_served_by_https_and_plain_requests_are_sent_there(scene: Scene) -> None:
    plain = await scene.get("secure.example.com", "/some?where=1")
    assert (plain.status, plain.header("location")) == (308, "https://secure.example.com/some?where=1")
    assert (await scene.secure("secure.example.com", "/some")).json()["name"] == "echo"


async def test_ingresses_share_the_certificate_of_a_host(scene: Scene) -> None:
    assert (await scene.secure("secure.example.com", "/too")).json()["name"] == "next"
    assert await scene.backend("secure.example.com", "/too") == "next /too"


@pytest.mark.parametrize(
    ("host", "asked", "answer"),
    [
        ("cut.example.com", "/api/items?a=b", "echo /items?a=b"),
        ("cut.example.com", "/api", "echo /"),
        ("cut.example.com", "/apis", "next /apis"),
        ("new.example.com", "/a/b", "echo /new/a/b"),
        ("fixed.example.com", "/old/more?a=b", "echo /fixed?a=b"),
        ("swap.example.com", "/abc/12", "echo /12/abc"),
        ("swap.example.com", "/abc/12/more", "echo /12/abc"),
        ("regex.example.com", "/item/12", "echo /item/12"),
        ("regex.example.com", "/ITEM/12", "echo /ITEM/12"),
        ("regex.example.com", "/item/12/more", "next /item/12/more"),
    ],
)
async def test_paths_are_matched_and_rewritten_as_the_annotations_say(
    scene: Scene, host: str, asked: str, answer: str
) -> None:
    assert await scene.backend(host, asked) == answer


@pytest.mark.parametrize(
    ("host", "asked", "status", "location"),
    [
        ("regex.example.com", "/", 302, "http://regex.example.com/item/1"),
        ("moved.example.com", "/any", 301, "https://new.example.com/here"),
        ("away.example.com", "/any?a=b", 302, "https://b.example.com/any?a=b"),
    ],
)
async def test_redirects_are_answered_as_the_annotations_say(
    scene: Scene, host: str, asked: str, status: int, location: str
) -> None:
    response = await scene.get(host, asked)
    assert response.status == status
    assert (response.header("location") or "").replace(f":{scene.gateway.port(80)}", "") == location


async def test_only_the_addresses_that_are_listed_come_in(scene: Scene) -> None:
    assert await scene.backend("inside.example.com") == "echo /"
    assert await scene.backend("outside.example.com") == "403"
    assert await scene.backend("denied.example.com") == "403"


async def test_a_guard_that_is_not_supported_lets_nobody_in(scene: Scene) -> None:
    assert await scene.backend("auth.example.com") == "500"
    await scene.gateway.found("Ingress demo/auth", "auth-url", "answered with 500")


async def test_browsers_are_told_which_origins_may_call(scene: Scene) -> None:
    asking = {"origin": "https://a.example.com", "access-control-request-method": "PUT"}
    told = await scene.get("cors.example.com", method="OPTIONS", headers=asking)
    assert told.header("access-control-allow-origin") == "https://a.example.com"
    assert told.header("access-control-allow-credentials") == "true"
    assert "PUT" in (told.header("access-control-allow-methods") or "")
    assert told.header("access-control-max-age") == "60"
    other = await scene.get("cors.example.com", headers={"origin": "https://b.example.com"})
    assert other.header("access-control-allow-origin") is None


async def test_each_client_has_a_limit_of_its_own(scene: Scene) -> None:
    statuses = [(await scene.get("limited.example.com")).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


async def test_a_canary_has_the_requests_that_a_header_or_a_weight_gives_it(scene: Scene) -> None:
    host = "canary.example.com"
    assert await scene.backend(host) == "echo /"
    assert await scene.backend(host, headers={"x-canary": "always"}) == "next /"
    assert await scene.backend(host, headers={"x-canary": "never"}) == "echo /"
    assert await scene.backend("share.example.com") == "next /"


async def test_a_backend_that_speaks_tls_is_reached_though_nobody_says_whom_to_trust(scene: Scene) -> None:
    assert await scene.backend("tls.example.com") == "tls /"


async def test_a_backend_that_stands_still_for_too_long_is_given_up(scene: Scene) -> None:
    assert await asyncio.wait_for(scene.backend("slow.example.com"), 8) == "504"


async def test_what_has_no_effect_is_told_at_its_line_and_nothing_else(scene: Scene) -> None:
    await scene.gateway.found("Ingress demo/paths", "spec.rules[0].http.paths[4].backend.service", "demo/gone")
    findings = scene.gateway.findings()
    assert {each.split(" ")[2] for each in findings} == {"demo/auth", "demo/paths"}
    assert all(":1:" not in each and "all.yaml:" in each for each in findings)


async def test_what_an_ingress_expands_to_follows_what_it_depends_on() -> None:
    authority = Authority()
    host = "changes.example.com"
    secret = authority.leaf(host).secret("demo", "cert")
    first = ingress("first", rule(host, path("/", port="web")), created="2020-01-01T00:00:00Z")
    secured = {**first, "spec": {**first["spec"], "tls": [{"hosts": [host], "secretName": "cert"}]}}
    async with Upstream("echo") as echo:
        fixed = [GATEWAY_CLASS, carrier(), secret]
        files = {
            "fixed.yaml": fixed,
            "class.yaml": [ingress_class()],
            "service.yaml": service("echo", echo.port),
            "ingress.yaml": [first],
        }
        async with Gateway(files) as started:
            await started.answers("/", host=host)
            started.write("ingress.yaml", [secured])
            await started.answers("/", 308, host=host)
            scene = Scene(started, authority.client_context())
            assert (await scene.secure(host)).status == 200
            # A bad version: the last good one stays, and what is wrong is said.
            started.write("ingress.yaml", [{**secured, "spec": {**secured["spec"], "rules": [{"host": "Bad Host"}]}}])
            await started.found("Ingress demo/first", "spec.rules[0].host", "last good")
            assert (await scene.secure(host)).status == 200
            started.write("ingress.yaml", [first])
            await started.answers("/", host=host)
            started.write("class.yaml", [ingress_class(controller="example.com/other")])
            await started.answers("/", 404, host=host)
            started.write("class.yaml", [ingress_class()])
            await started.answers("/", host=host)
            started.remove("ingress.yaml")
            await started.answers("/", 404, host=host)


async def test_a_bad_ingress_goes_on_as_it_was_last_good_after_a_restart() -> None:
    host = "kept.example.com"
    good = ingress(
        "kept", rule(host, path("/(.*)", type_="ImplementationSpecific")), annotations={"rewrite-target": "/new/$1"}
    )
    async with Upstream("echo") as echo:
        fixed = [GATEWAY_CLASS, carrier(), ingress_class(), *service("echo", echo.port)]
        async with Gateway({"fixed.yaml": fixed, "ingress.yaml": [good]}, keeps_state=True) as started:
            await started.answers("/a", host=host)
            started.write("ingress.yaml", [{**good, "spec": {**good["spec"], "rules": [{"host": "Bad Host"}]}}])
            await started.found("Ingress demo/kept", "spec.rules[0].host", "last good")
            await started.stop_plane()
            await started.start_plane()
            await started.restart_envoy()
            assert (await started.answers("/a", host=host)).json()["path"] == "/new/a"
            # Neither can it be read at all: it stays until its file says otherwise.
            started.write("ingress.yaml", "a: [")
            await started.found("ingress.yaml")
            await started.stop_plane()
            await started.start_plane()
            await started.restart_envoy()
            await started.answers("/a", host=host)
            started.remove("ingress.yaml")
            await started.answers("/a", 404, host=host)
