"""What a rule does with requests and answers, seen through a real Envoy (Gateway API: HTTPRouteFilter)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.http import Response
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def redirect(path: str, /, **to: Any) -> dict[str, Any]:
    return {"matches": [{"path": {"value": path}}], "filters": [{"type": "RequestRedirect", "requestRedirect": to}]}


def rewrite(path: str, /, **to: Any) -> dict[str, Any]:
    return m.to_backend(path, "echo", filters=[{"type": "URLRewrite", "urlRewrite": to}])


def full(value: str) -> dict[str, str]:
    return {"type": "ReplaceFullPath", "replaceFullPath": value}


def prefix(value: str) -> dict[str, str]:
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}


def modified(path: str, **edits: Any) -> dict[str, Any]:
    kinds = {"request": "RequestHeaderModifier", "response": "ResponseHeaderModifier"}
    filters = [
        {"type": kinds[side], f"{kinds[side][0].lower()}{kinds[side][1:]}": edit} for side, edit in edits.items()
    ]
    return m.to_backend(path, "echo", filters=filters)


def mirror(path: str, **share: Any) -> dict[str, Any]:
    ref = {"group": "dragoman.dev", "kind": "Backend", "name": "shadow"}
    return m.to_backend(
        path, "echo", filters=[{"type": "RequestMirror", "requestMirror": {"backendRef": ref, **share}}]
    )


def cors(path: str, **policy: Any) -> dict[str, Any]:
    return m.to_backend(path, "echo", filters=[{"type": "CORS", "cors": policy}])


def listener(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}


ROUTES = {
    "headers": [
        modified(
            "/headers",
            request={"set": [{"name": "X-Set", "value": "new"}], "add": [{"name": "x-add", "value": "more"}]},
            response={"set": [{"name": "x-said", "value": "b"}], "add": [{"name": "x-more", "value": "2"}]},
        ),
        modified("/remove", request={"remove": ["x-gone", "X-Other"]}, response={"remove": ["x-said", "Server"]}),
        modified("/percent", request={"set": [{"name": "x-set", "value": "100%"}]}),
        modified("/variable", request={"set": [{"name": "x-set", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}]}),
    ],
    "redirects": [redirect(f"/code/{code}", statusCode=code) for code in (301, 302, 303, 307, 308)]
    + [
        redirect("/default"),
        redirect("/https", scheme="https"),
        redirect("/http", scheme="http"),
        redirect("/host", hostname="www.example.com"),
        redirect("/port", port=8443),
        redirect("/all", scheme="https", hostname="www.example.com", port=8443, statusCode=308),
        redirect("/port-of-https", scheme="https", port=443),
        redirect("/full", path=full("/elsewhere")),
    ],
    "redirect-prefixes": [
        redirect("/old", path=prefix("/new")),
        redirect("/slash", path=prefix("/new/")),
        redirect("/strip", path=prefix("/")),
        redirect("/empty", path=prefix("")),
    ],
    "rewrites": [
        rewrite("/full", path=full("/only")),
        rewrite("/full-root", path=full("/")),
        rewrite("/full-back", path=full("/a\\1b")),
        rewrite("/api", path=prefix("/v1")),
        rewrite("/api-slash", path=prefix("/v1/")),
        rewrite("/strip", path=prefix("/")),
        rewrite("/strip-empty", path=prefix("")),
        rewrite("/dot.ted", path=prefix("/")),
        rewrite("/host", hostname="inner.example.com"),
        rewrite("/both", hostname="inner.example.com", path=prefix("/new")),
    ],
    "mirrors": [
        mirror("/mirror-all"),
        mirror("/mirror-none", percent=0),
        mirror("/mirror-some", percent=30),
        mirror("/mirror-fraction", fraction={"numerator": 1, "denominator": 2}),
    ],
    "cors": [
        cors(
            "/cors",
            allowOrigins=["https://*.example.com", "https://one.example.org:8443"],
            allowMethods=["GET", "PUT"],
            allowHeaders=["x-a", "x-b"],
            exposeHeaders=["x-c"],
            maxAge=60,
            allowCredentials=True,
        ),
        cors("/cors-any", allowOrigins=["*"], allowMethods=["*"], allowHeaders=["*"]),
        cors(
            "/cors-any-credentials",
            allowOrigins=["*"],
            allowMethods=["*"],
            allowHeaders=["*"],
            exposeHeaders=["*"],
            allowCredentials=True,
        ),
    ],
}


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    upstream: Upstream
    shadow: Upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    async with Upstream("echo") as upstream, Upstream("shadow") as shadow:
        base = [
            GATEWAY_CLASS,
            m.gateway(listeners=[listener("http", 80), listener("other", 8080)]),
            m.backend("echo", upstream.port),
            m.backend("shadow", shadow.port),
        ]
        routes = [m.route(name, rules, hostnames=[f"{name}.example.com"]) for name, rules in ROUTES.items()]
        routes.append(m.route("rewrite-everything", [rewrite("/", path=prefix("/new"))], hostnames=["all.example.com"]))
        routes.append(
            m.route("redirect-everything", [redirect("/", path=prefix("/new"))], hostnames=["moved.example.com"])
        )
        async with Gateway({"base.yaml": base, "routes.yaml": routes}) as gateway:
            assert gateway.findings() == []
            yield Scene(gateway, upstream, shadow)


async def seen_upstream(scene: Scene, host: str, path: str, **request: Any) -> Mapping[str, Any]:
    response = await scene.gateway.get(path, host=host, **request)
    assert response.status == 200
    return response.json()


async def test_headers_of_a_request_are_set_and_added(scene: Scene) -> None:
    sent = [("x-set", "old"), ("x-add", "first")]
    headers = (await seen_upstream(scene, "headers.example.com", "/headers", headers=sent))["headers"]
    assert headers["x-set"] == "new"
    assert headers["x-add"].replace(" ", "") == "first,more"


async def test_headers_of_an_answer_are_set_added_and_removed(scene: Scene) -> None:
    scene.upstream.answer(200, "{}", (("x-said", "a"), ("x-more", "1"), ("server", "mine")))
    try:
        response = await scene.gateway.get("/headers", host="headers.example.com")
        assert response.all("x-said") == ["b"]
        assert ",".join(response.all("x-more")) == "1,2"
        assert response.header("server") == "mine"
        removed = await scene.gateway.get("/remove", host="headers.example.com")
        assert removed.header("x-said") is None
        assert removed.header("server") is None
    finally:
        scene.upstream.echo()


async def test_headers_of_a_request_are_removed(scene: Scene) -> None:
    sent = {"x-gone": "1", "x-other": "2", "x-kept": "3"}
    headers = (await seen_upstream(scene, "headers.example.com", "/remove", headers=sent))["headers"]
    assert not {"x-gone", "x-other"} & headers.keys()
    assert headers["x-kept"] == "3"


async def test_header_values_are_taken_literally(scene: Scene) -> None:
    told = await seen_upstream(scene, "headers.example.com", "/percent")
    assert told["headers"]["x-set"] == "100%"
    told = await seen_upstream(scene, "headers.example.com", "/variable")
    assert told["headers"]["x-set"] == "%DOWNSTREAM_REMOTE_ADDRESS%"


async def redirected(scene: Scene, path: str, *, host: str = "redirects.example.com", port: int = 80) -> Response:
    return await scene.gateway.get(path, host=host, port=port)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_has_the_status_that_was_asked_for(scene: Scene, code: int) -> None:
    response = await redirected(scene, f"/code/{code}/x?q=1")
    assert response.status == code
    assert response.header("location") == f"http://redirects.example.com/code/{code}/x?q=1"


@pytest.mark.parametrize(
    ("path", "port", "location"),
    [
        ("/default", 80, "http://redirects.example.com/default"),
        ("/default", 8080, "http://redirects.example.com:8080/default"),
        ("/https/x?q=1", 80, "https://redirects.example.com/https/x?q=1"),
        ("/https", 8080, "https://redirects.example.com/https"),
        ("/http", 8080, "http://redirects.example.com/http"),
        ("/host", 80, "http://www.example.com/host"),
        ("/host", 8080, "http://www.example.com:8080/host"),
        ("/port", 80, "http://redirects.example.com:8443/port"),
        ("/all", 80, "https://www.example.com:8443/all"),
        ("/full/x?q=1", 80, "http://redirects.example.com/elsewhere?q=1"),
    ],
)
async def test_a_redirect_says_where_to(scene: Scene, path: str, port: int, location: str) -> None:
    response = await redirected(scene, path, port=port)
    assert response.header("location") == location
    assert response.status == (308 if path == "/all" else 302)


async def test_a_port_that_was_asked_for_may_be_left_out_where_it_is_the_schemes_own(scene: Scene) -> None:
    response = await redirected(scene, "/port-of-https")
    assert (response.header("location") or "").replace(":443", "") == "https://redirects.example.com/port-of-https"


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/old", "/new"),
        ("/old/", "/new/"),
        ("/old/x/y?q=1", "/new/x/y?q=1"),
        ("/slash", "/new"),
        ("/slash/x", "/new/x"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip/x?q=1", "/x?q=1"),
        ("/empty/x", "/x"),
    ],
)
async def test_a_redirect_replaces_the_prefix_that_matched(scene: Scene, path: str, location: str) -> None:
    response = await redirected(scene, path, host="redirect-prefixes.example.com")
    assert response.header("location") == f"http://redirect-prefixes.example.com{location}"


async def test_a_prefix_of_the_root_is_put_in_front(scene: Scene) -> None:
    assert (await seen_upstream(scene, "all.example.com", "/x?q=1"))["path"] == "/new/x?q=1"
    response = await redirected(scene, "/x?q=1", host="moved.example.com")
    assert response.header("location") == "http://moved.example.com/new/x?q=1"


@pytest.mark.parametrize(
    ("path", "rewritten"),
    [
        ("/full/x?q=1", "/only?q=1"),
        ("/full-root/x", "/"),
        ("/full-back", "/a\\1b"),
        ("/api", "/v1"),
        ("/api/", "/v1/"),
        ("/api/x/y?q=1", "/v1/x/y?q=1"),
        ("/api-slash", "/v1"),
        ("/api-slash/x", "/v1/x"),
        ("/strip", "/"),
        ("/strip?q=1", "/?q=1"),
        ("/strip/", "/"),
        ("/strip/x/strip/y", "/x/strip/y"),
        ("/strip-empty", "/"),
        ("/strip-empty/x", "/x"),
        ("/dot.ted/x", "/x"),
    ],
)
async def test_a_path_is_rewritten_on_the_way(scene: Scene, path: str, rewritten: str) -> None:
    assert (await seen_upstream(scene, "rewrites.example.com", path))["path"] == rewritten


async def test_a_host_is_rewritten_on_the_way(scene: Scene) -> None:
    told = await seen_upstream(scene, "rewrites.example.com", "/host/x")
    assert (told["headers"]["host"], told["path"]) == ("inner.example.com", "/host/x")
    told = await seen_upstream(scene, "rewrites.example.com", "/both/x")
    assert (told["headers"]["host"], told["path"]) == ("inner.example.com", "/new/x")


async def test_a_mirror_gets_a_copy_of_every_request(scene: Scene) -> None:
    before = scene.shadow.count
    await seen_upstream(scene, "mirrors.example.com", "/mirror-all/x?q=1", method="POST", body=b"hello")
    await until(lambda: scene.shadow.count == before + 1, what="the copy")
    copy = scene.shadow.requests[-1]
    assert (copy.method, copy.path, copy.body) == ("POST", "/mirror-all/x?q=1", b"hello")
    assert copy.header("host") == "mirrors.example.com"


@pytest.mark.parametrize(("path", "low", "high"), [("/mirror-none", 0, 0), ("/mirror-some", 40, 140)])
async def test_a_mirror_gets_its_share(scene: Scene, path: str, low: int, high: int) -> None:
    before = scene.shadow.count
    for _ in range(300):
        await seen_upstream(scene, "mirrors.example.com", path)
    # Copies go out in order: when the last, which is certain, has come, all have.
    await seen_upstream(scene, "mirrors.example.com", "/mirror-all/last")
    await until(
        lambda: scene.shadow.requests and scene.shadow.requests[-1].path.endswith("/last"), what="the last copy"
    )
    assert low <= scene.shadow.count - before - 1 <= high


async def test_a_mirror_that_is_down_harms_nobody(scene: Scene) -> None:
    scene.shadow.stop()
    try:
        await seen_upstream(scene, "mirrors.example.com", "/mirror-all")
    finally:
        await scene.shadow.start()


def preflight(origin: str, **more: str) -> dict[str, str]:
    asked = {f"access-control-request-{key}": value for key, value in more.items()}
    return {"origin": origin, "access-control-request-method": "PUT", **asked}


@pytest.mark.parametrize("origin", ["https://a.example.com", "https://a.b.example.com", "https://one.example.org:8443"])
async def test_a_preflight_of_an_allowed_origin_is_answered_by_the_gateway(scene: Scene, origin: str) -> None:
    before = scene.upstream.count
    response = await scene.gateway.get(
        "/cors", host="cors.example.com", method="OPTIONS", headers=preflight(origin, headers="x-a")
    )
    assert response.status in (200, 204)
    assert scene.upstream.count == before
    told = {
        name: response.header(f"access-control-{name}") for name in ("allow-origin", "max-age", "allow-credentials")
    }
    assert told == {"allow-origin": origin, "max-age": "60", "allow-credentials": "true"}
    assert _list(response, "allow-methods") == {"GET", "PUT"}
    assert _list(response, "allow-headers") == {"x-a", "x-b"}


async def test_an_answer_to_an_allowed_origin_says_so(scene: Scene) -> None:
    origin = "https://a.example.com"
    response = await scene.gateway.get("/cors", host="cors.example.com", headers={"origin": origin})
    assert response.status == 200
    assert response.header("access-control-allow-origin") == origin
    assert response.header("access-control-allow-credentials") == "true"
    assert _list(response, "expose-headers") == {"x-c"}


@pytest.mark.parametrize(
    "origin",
    ["https://example.com", "http://a.example.com", "https://a.example.com.evil.test", "https://one.example.org"],
)
async def test_another_origin_is_not_told_that_it_may(scene: Scene, origin: str) -> None:
    asked = await scene.gateway.get("/cors", host="cors.example.com", method="OPTIONS", headers=preflight(origin))
    assert asked.header("access-control-allow-origin") is None
    response = await scene.gateway.get("/cors", host="cors.example.com", headers={"origin": origin})
    assert response.header("access-control-allow-origin") is None


async def test_every_origin_method_and_header_may_be_allowed(scene: Scene) -> None:
    response = await scene.gateway.get(
        "/cors-any", host="cors.example.com", method="OPTIONS", headers=preflight("https://x.test", headers="x-q")
    )
    assert response.header("access-control-allow-origin") in ("*", "https://x.test")
    assert _list(response, "allow-methods") & {"*", "PUT"}
    assert _list(response, "allow-headers") & {"*", "x-q"}
    assert response.header("access-control-max-age") == "5"


async def test_with_credentials_a_wildcard_is_spelled_out(scene: Scene) -> None:
    # A browser takes `*` literally where credentials are sent (Fetch: CORS protocol and credentials).
    response = await scene.gateway.get(
        "/cors-any-credentials",
        host="cors.example.com",
        method="OPTIONS",
        headers=preflight("https://x.test", headers="x-q"),
    )
    assert response.header("access-control-allow-origin") == "https://x.test"
    assert "PUT" in _list(response, "allow-methods")
    assert "x-q" in _list(response, "allow-headers")


def _list(response: Response, name: str) -> set[str]:
    value = response.header(f"access-control-{name}") or ""
    return {each.strip() for each in value.split(",") if each.strip()}
