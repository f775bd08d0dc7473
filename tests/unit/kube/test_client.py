"""The API client: what it sends, and how failures can be told apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from controlplane.kube.access import find_access, fixed_access
from controlplane.kube.client import Api, ApiError, KubeconfigError, path_of
from tests.support.certificates import Authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers with what `answer` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.token = ""
        self.answer: Handler = self._empty
        self.ready = 200

    async def _empty(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status"})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/readyz":
            return web.Response(status=self.ready, text="ok")
        body = await request.read()
        self.requests.append((request.method, request.path_qs, dict(request.headers), body))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401, "reason": "Unauthorized"}, status=401)
        return await self.answer(request)

    def says(self, status: int, document: Any, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(document, status=status, headers=headers)

        self.answer = answer


@contextlib.asynccontextmanager
async def serving(server: Server, tls: Any = None) -> AsyncGenerator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def api(server: Server) -> AsyncGenerator[Api]:
    async with serving(server) as url, Api.over(fixed_access(url, token="t"), timeout_s=2.0) as api:
        yield api


def _kubeconfig(folder: Path, url: str, user: Any, **cluster: Any) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "other", "user": "u"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": url, **cluster}},
            {"name": "other", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("", "v1", "nodes"), "/api/v1/nodes"),
        (("", "v1", "pods", "n", "p"), "/api/v1/namespaces/n/pods/p"),
        (("apps", "v1", "deployments", "n", "d", "scale"), "/apis/apps/v1/namespaces/n/deployments/d/scale"),
        (("g", "v1", "things", "", "../x?y"), "/apis/g/v1/things/..%2Fx%3Fy"),
    ],
)
def test_paths_are_those_of_the_api_and_names_cannot_leave_them(arguments: Any, path: str) -> None:
    assert path_of(*arguments) == path


async def test_each_verb_is_sent_as_the_api_wants_it(api: Api, server: Server) -> None:
    await api.get("/x", params={"limit": "5"}, accept="application/special")
    await api.create("/x", {"a": 1})
    await api.replace("/x/n", {"a": 2})
    await api.apply("/x/n", {"a": 3}, field_manager="dragoman")
    await api.patch("/x/n/status", {"a": 4}, params={"fieldManager": "f"})
    await api.patch("/x/n", [{"op": "add"}], content_type="application/json-patch+json")
    await api.delete("/x/n", uid="u")
    sent = [(method, path, headers.get("Content-Type"), body) for method, path, headers, body in server.requests]
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
    }
    assert sent == [
        ("GET", "/x?limit=5", None, b""),
        ("POST", "/x", "application/json", b'{"a":1}'),
        ("PUT", "/x/n", "application/json", b'{"a":2}'),
        ("PATCH", "/x/n?fieldManager=dragoman&force=true", "application/apply-patch+yaml", b'{"a":3}'),
        ("PATCH", "/x/n/status?fieldManager=f", "application/merge-patch+json", b'{"a":4}'),
        ("PATCH", "/x/n", "application/json-patch+json", b'[{"op":"add"}]'),
        ("DELETE", "/x/n", "application/json", json.dumps(options, separators=(",", ":")).encode()),
    ]
    assert server.requests[0][2]["Accept"] == "application/special"
    assert server.requests[1][2]["Authorization"] == "Bearer t"
    assert all(headers["Accept-Encoding"] == "identity" for _, _, headers, _ in server.requests)


@pytest.mark.parametrize(
    ("status", "reason", "trait"),
    [
        (404, "NotFound", "not_found"),
        (409, "Conflict", "conflict"),
        (409, "AlreadyExists", "exists"),
        (410, "Expired", "gone"),
        (403, "Forbidden", "forbidden"),
        (422, "Invalid", "invalid"),
        (429, "TooManyRequests", "transient"),
        (503, "ServiceUnavailable", "transient"),
    ],
)
async def test_refusals_can_be_told_apart(api: Api, server: Server, status: int, reason: str, trait: str) -> None:
    server.says(status, {"kind": "Status", "code": status, "reason": reason, "message": "no"}, **{"Retry-After": "7"})
    with pytest.raises(ApiError) as caught:
        await api.get("/x")
    traits = ("not_found", "conflict", "exists", "gone", "forbidden", "invalid", "transient", "unreachable")
    assert [each for each in traits if getattr(caught.value, each)] == [trait]
    assert (caught.value.status, caught.value.reason, caught.value.message) == (status, reason, "no")
    assert caught.value.retry_after_s == 7.0
    assert str(caught.value) == f"no ({status} {reason})"


@pytest.mark.parametrize("ready", [403, 500])
async def test_what_an_api_server_refuses_before_it_is_ready_is_not_believed(
    api: Api, server: Server, ready: int
) -> None:
    server.says(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"})
    server.ready = ready
    with pytest.raises(ApiError) as caught:
        await api.get("/x")
    assert (caught.value.transient, caught.value.forbidden) == (True, False)
    assert caught.value.message == f"{api.url} is starting: no"
    server.ready = 200
    with pytest.raises(ApiError) as caught:
        await api.get("/x")
    assert caught.value.forbidden


async def test_where_readiness_may_never_be_asked_for_refusals_are_believed_after_a_while(server: Server) -> None:
    now = [0.0]
    server.says(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"})
    server.ready = 403
    async with serving(server) as url, aiohttp.ClientSession() as session:
        api = Api(fixed_access(url, token="t"), session, clock=lambda: now[0])
        seen: list[bool] = []
        for now[0] in (0.0, 59.0, 61.0):
            with pytest.raises(ApiError) as caught:
                await api.get("/x")
            seen.append(caught.value.forbidden)
    assert seen == [False, False, True]


async def test_a_refusal_that_is_no_status_is_one_all_the_same(api: Api, server: Server) -> None:
    async def proxy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<h1>\nbad gateway", headers={"Retry-After": "soon"})

    server.answer = proxy
    with pytest.raises(ApiError, match="bad gateway") as caught:
        await api.get("/x")
    assert (caught.value.status, caught.value.retry_after_s) == (502, None)


async def test_nobody_there_is_status_0() -> None:
    async with Api.over(fixed_access("http://127.0.0.1:1")) as api:
        with pytest.raises(ApiError) as caught:
            await api.get("/x")
        assert (caught.value.status, caught.value.reason, caught.value.unreachable) == (0, "Unreachable", True)
        with pytest.raises(ApiError):
            _ = [line async for line in api.lines("/x", params={})]


async def test_no_answer_in_time_is_status_0(server: Server) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    server.answer = slow
    async with serving(server) as url, Api.over(fixed_access(url), timeout_s=0.1) as api:
        with pytest.raises(ApiError) as caught:
            await api.get("/x")
    assert (caught.value.status, caught.value.reason) == (0, "Timeout")


@pytest.mark.parametrize("body", ["[1]", "{", "", "[" * 100_000])
async def test_an_answer_that_is_no_object_is_malformed(api: Api, server: Server, body: str) -> None:
    async def nonsense(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body, content_type="application/json")

    server.answer = nonsense
    with pytest.raises(ApiError) as caught:
        await api.get("/x")
    assert caught.value.reason == "Malformed"


async def test_a_redirection_is_not_followed(api: Api, server: Server) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/stolen"})

    server.answer = elsewhere
    with pytest.raises(ApiError) as caught:
        await api.get("/x")
    assert caught.value.status == 302
    assert [path for _, path, _, _ in server.requests] == ["/x"]


async def test_an_answer_has_a_bound(api: Api, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.kube.client.MAX_BODY_BYTES", 1000)
    server.says(200, {"a": "x" * 2000})
    with pytest.raises(ApiError, match="more than 1000 bytes"):
        await api.get("/x")


async def test_requests_in_flight_are_bounded(api: Api, server: Server) -> None:
    count = most = 0

    async def counting(request: web.Request) -> web.StreamResponse:
        nonlocal count, most
        count += 1
        most = max(most, count)
        await asyncio.sleep(0.01)
        count -= 1
        return web.json_response({})

    server.answer = counting
    await asyncio.gather(*(api.get("/x") for _ in range(200)))
    assert most == 32


async def test_lines_come_whole_however_they_are_cut(api: Api, server: Server) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b"one\ntw", b"o\n", b"\n", b"thr", b"e", b"e\nfour\nrest"):
            await response.write(piece)
            await asyncio.sleep(0.005)
        return response

    server.answer = drip
    opened: list[int] = []
    lines = api.lines("/x", params={"resourceVersion": "5"}, on_open=lambda: opened.append(1))
    async with contextlib.aclosing(lines):
        assert [line async for line in lines] == [b"one", b"two", b"three", b"four"]
    assert opened == [1]
    assert server.requests[0][1] == "/x?timeoutSeconds=300&resourceVersion=5&watch=true"


async def test_a_token_is_read_again_when_it_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.kube.access._REFUSED_REFRESH_S", 0.0)
    token = tmp_path / "token"
    token.write_text("first\n")
    server.token = "first"
    async with serving(server) as url:
        path = _kubeconfig(tmp_path, url, {"tokenFile": str(token)})
        async with Api.connect(kubeconfig=path) as api:
            await api.get("/x")
            server.token = "second"
            token.write_text("second\n")
            await api.get("/x")
            server.token = "third"
            with pytest.raises(ApiError) as caught:
                await api.get("/x")
    assert caught.value.status == 401


async def test_a_service_account_is_used_in_a_pod_and_its_token_read_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    tls = authority.leaf("127.0.0.1").server_context(tmp_path)
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("first")
    (account / "ca.crt").write_text(authority.cert_pem)
    monkeypatch.setattr("controlplane.kube.access._SERVICE_ACCOUNT", account)
    monkeypatch.setattr("controlplane.kube.access._REFRESH_S", 0.0)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    server.token = "first"
    async with serving(server, tls) as url:
        host, _, port = url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        async with Api.connect() as api:
            assert api.url == url
            await api.get("/x")
            server.token = "rotated"
            (account / "token").write_text("rotated")
            await api.get("/x")
            # A token that is just being written does no harm.
            (account / "token").write_text("")
            await api.get("/x")
            # Another authority is trusted at once, and the one before no more.
            (account / "token").write_text("rotated")
            (account / "ca.crt").write_text(Authority().cert_pem)
            with pytest.raises(ApiError, match="certificate"):
                await api.get("/x")


async def test_a_certificate_of_somebody_else_is_not_trusted(server: Server, tmp_path: Path) -> None:
    authority = Authority()
    ca = tmp_path / "ca.crt"
    async with serving(server, authority.leaf("127.0.0.1").server_context(tmp_path)) as url:
        for pem, trusted in ((Authority().cert_pem, False), (authority.cert_pem, True)):
            ca.write_text(pem)
            path = _kubeconfig(tmp_path, url, {"token": "t"}, **{"certificate-authority": str(ca)})
            async with Api.connect(kubeconfig=path) as api:
                if trusted:
                    await api.get("/x")
                else:
                    with pytest.raises(ApiError, match="certificate verify failed"):
                        await api.get("/x")
                    assert not server.requests


async def test_a_plugin_gives_credentials_and_is_asked_again_when_they_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.kube.access._REFUSED_REFRESH_S", 0.0)
    monkeypatch.setattr("controlplane.kube.access._REFRESH_S", 0.0)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import json, pathlib\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "n = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(n))\n"
        "version = 'client.authentication.k8s.io/v1'\n"
        "print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': {'token': f'token-{n}'}}))\n"
    )
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(plugin)]}
    server.token = "token-1"
    async with serving(server) as url:
        path = _kubeconfig(tmp_path, url, {"exec": run})
        async with Api.connect(kubeconfig=path) as api:
            for _ in range(3):
                await api.get("/x")
            server.token = "token-2"
            await api.get("/x")
    assert (tmp_path / "count").read_text() == "2"


async def test_where_the_api_server_is_is_told_by_flag_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(KubeconfigError, match=r"no kubeconfig at .*/\.kube/config"):
        await find_access()
    path = _kubeconfig(tmp_path, "http://127.0.0.1:2", {"token": "t"})
    assert (await find_access(path)).url == "http://127.0.0.1:2"
    assert (await find_access(path, "two")).url == "http://127.0.0.1:1"
    os.environ["KUBECONFIG"] = str(path)
    assert (await find_access()).url == "http://127.0.0.1:2"
    with pytest.raises(KubeconfigError, match="three"):
        await find_access(path, "three")
    path.write_text("a: [")
    with pytest.raises(KubeconfigError):
        await find_access(path)
