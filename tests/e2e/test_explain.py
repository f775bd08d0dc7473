"""What `explain` says of a request is what a real Envoy does with it."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.explain import Explanation, Request, explain, locator
from controlplane.pipeline import http
from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.dragoman import Serve, dragoman_command
from tests.support.gateway import Gateway, write_documents
from tests.support.http import Connection, Response

SEED = 20261121
_ROUTES, _REQUESTS = 14, 400
_SEGMENTS = ["a", "ab", "b", "c.d"]
_HOSTS = ["a.example.com", "b.example.com", "x.b.example.com", "example.com", "other.test", "A.Example.com"]
_HOSTNAMES = [[], [], ["a.example.com"], ["*.example.com"], ["*.b.example.com", "example.com"], ["other.test"]]
_PATTERNS = ["/a.*", "/[ab]/.*", "[a-z/]*c[.]d", "/ab?/[a-z.]+"]
_VALUES = [
    {"value": "1"},
    {"value": "2"},
    {"value": "1,2"},
    {"value": "[12]", "type": "RegularExpression"},
]
_ODD = [
    "/a/../b",
    "/a//b",
    "/%61/b",
    "/a%2Fb",
    "/a%5cb",
    "/./ab",
    "/a/.",
    "/../a",
    "/a/%2e%2e/b",
    "/a/..",
    "/a%20b",
    "/",
]
_ODD += ["/a\\b", "/a/b/../../..", "/a;v=1", "/%zz", "//a", "/a%3Fb", "/a/b//", "/A"]
_QUERIES = ["", "", "?", "?p=1", "?q=2&p=1", "?p=2&p=1", "?x=/a/b", "?p=%31", "?p", "?p=1=1", "?&p=1"]


def _path(random_: random.Random, most: int = 3) -> str:
    return "/" + "/".join(random_.choice(_SEGMENTS) for _ in range(random_.randint(0, most)))


def _match(random_: random.Random) -> dict[str, Any]:
    kind = random_.choice(["Exact", "PathPrefix", "PathPrefix", "RegularExpression"])
    value = random_.choice(_PATTERNS) if kind == "RegularExpression" else _path(random_)
    found: dict[str, Any] = {"path": {"type": kind, "value": value}}
    if random_.random() < 0.3:
        found["method"] = random_.choice(["GET", "POST"])
    headers = [{"name": n, **random_.choice(_VALUES)} for n in ("x-one", "x-dragoman-x") if random_.random() < 0.15]
    if random_.random() < 0.1:
        headers.append({"name": "X-Forwarded-Proto", "value": random_.choice(["http", "https"])})
    if random_.random() < 0.05:
        headers.append({"name": "Host", "value": "a.example.com"})
    query = [{"name": name, **random_.choice(_VALUES)} for name in ("p", "q") if random_.random() < 0.15]
    return found | ({"headers": headers} if headers else {}) | ({"queryParams": query} if query else {})


def _route(random_: random.Random, name: str) -> m.Manifest:
    """A route whose rules are told apart by where they redirect to."""
    rules = [
        {
            "name": f"rule-{index}",
            "matches": [_match(random_) for _ in range(random_.randint(1, 3))],
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": f"rule-{index}.{name}.test"}}],
        }
        for index in range(random_.randint(1, 3))
    ]
    made = m.route(name, rules, hostnames=random_.choice(_HOSTNAMES))
    if random_.random() < 0.5:
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=random_.randint(0, 2))
        made["metadata"]["creationTimestamp"] = created.isoformat()
    if random_.random() < 0.3:
        made["spec"]["parentRefs"][0]["sectionName"] = random_.choice(["any", "wild"])
    return made


def _gateway() -> m.Manifest:
    everywhere = {"namespaces": {"from": "All"}}
    listeners = [
        {"name": "any", "port": 80, "protocol": "HTTP", "allowedRoutes": everywhere},
        {"name": "wild", "port": 80, "protocol": "HTTP", "hostname": "*.b.example.com", "allowedRoutes": everywhere},
    ]
    return m.gateway(listeners=listeners)


def _explained(gateway: Gateway, url: str, method: str = "GET", headers: tuple[str, ...] = ()) -> Explanation:
    assert gateway.plane is not None
    engine = gateway.plane.engine
    return explain(engine.pipeline, Request.of(url, method=method, headers=headers), locate=locator(engine))


def _said(explanation: Explanation) -> tuple[int | None, str | None]:
    """The status, and the host that the chosen rule redirects to."""
    chosen = explanation.chosen
    if chosen is None:
        return explanation.outcome.status, None
    _, _, name, rule = chosen.route.split("/")
    return explanation.outcome.status, f"{rule}.{name}.test"


def _done(response: Response) -> tuple[int, str | None]:
    location = response.header("location") or ""
    host = location.partition("://")[2].partition("/")[0].partition(":")[0]
    return response.status, host if host.startswith("rule-") else None


@pytest.mark.parametrize("tree_from", [1, 1000], ids=["tree", "list"])
async def test_explain_names_the_rule_that_envoy_chooses(tree_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TREE_FROM", tree_from)
    random_ = random.Random(SEED)
    documents = [m.gateway_class(), _gateway(), *(_route(random_, f"r{index}") for index in range(_ROUTES))]
    redirected = 0
    async with Gateway({"all.yaml": documents}) as gateway, await Connection.to(gateway.port(80)) as client:
        for _ in range(_REQUESTS):
            method, host = random_.choice(["GET", "POST"]), random_.choice(_HOSTS)
            path = random_.choice(_ODD) if random_.random() < 0.25 else _path(random_, 4)
            target = path + random_.choice(_QUERIES)
            names = [name for name in ("x-one", "x-dragoman-x", "x-forwarded-proto") if random_.random() < 0.3]
            headers = [(name, random_.choice(["1", "2", "https"])) for name in names]
            if random_.random() < 0.2:
                headers += [("x-one", random_.choice(["2", "1,2"]))]
            if not client.open:
                client = await Connection.to(gateway.port(80))
            answer = await client.request(target, method=method, host=host, headers=headers)
            texts = (f"Host: {host}", *(f"{name}: {value}" for name, value in headers))
            url = f"http://127.0.0.1:{gateway.port(80)}{target}"
            found = _explained(gateway, url, method, texts)
            assert _said(found) == _done(answer), (method, host, target, headers, found.outcome)
            redirected += found.chosen is not None
    assert _REQUESTS / 4 < redirected < _REQUESTS


def _https(name: str, hostname: str | None, secret: str) -> dict[str, Any]:
    found = {
        "name": name,
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"certificateRefs": [{"name": secret}]},
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return found | ({"hostname": hostname} if hostname else {})


def _to(name: str, listener: str) -> m.Manifest:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": f"rule-0.{name}.test"}}
    made = m.route(name, [{"name": "rule-0", "filters": [redirect]}])
    made["spec"]["parentRefs"][0]["sectionName"] = listener
    return made


async def test_explain_names_the_https_listener_that_envoy_chooses_by_the_name_of_tls() -> None:
    authority = Authority()
    names = ["a.example.com", "*.example.com", "x.b.example.com", "other.test"]
    documents = [
        m.gateway_class(),
        m.gateway(
            listeners=[_https("a", "a.example.com", "cert"), _https("w", "*.example.com", "cert")],
        ),
        authority.leaf(*names).secret("demo", "cert"),
        _to("ra", "a"),
        _to("rw", "w"),
    ]
    async with Gateway({"all.yaml": documents}) as gateway:
        client = authority.client_context()
        for sni in ("a.example.com", "x.b.example.com"):
            for host in ("a.example.com", "x.b.example.com", "other.test"):
                answer = await gateway.get("/", port=443, host=host, tls=client, sni=sni)
                found = _explained(gateway, f"https://{sni}:{gateway.port(443)}/", headers=(f"Host: {host}",))
                assert _said(found) == _done(answer), (sni, host)
        await gateway.cannot_connect(443, tls=client, sni="other.test")
        assert _explained(gateway, f"https://other.test:{gateway.port(443)}/").outcome.kind == "unreachable"


def _run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([dragoman_command(), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


async def test_a_running_control_plane_says_whether_envoys_enforce_limits_with_mode_quota(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
    limit = {"global": {"rules": [{"limit": {"requests": 5, "unit": "Minute"}, "mode": "Quota"}]}}
    policy = m.manifest(
        "dragoman.dev/v1alpha1", "BackendTrafficPolicy", "limits", {"targetRefs": [target], "rateLimit": limit}
    )
    route = m.route("r", [m.rule("/", "one")])
    write_documents(folder / "all.yaml", [m.gateway_class(), m.gateway(), m.service("one"), route, policy])
    told = {
        (): "5 requests a minute: Quota is not supported here: no quota service is known (--ratelimit-quota)",
        ("--ratelimit-quota", "127.0.0.1:9"): "the share that the rate limit service at 127.0.0.1:9 assigns to it",
    }
    for arguments, words in told.items():
        async with Serve(folder, *arguments, home=tmp_path) as serve:
            server = f"http://127.0.0.1:{serve.http_port}"
            code, said = await asyncio.to_thread(_run, "explain", "http://example.com/", "--server", server)
            assert (code, words in said) == (0, True), said
            # The folder is taken to be served as what runs is.
            code, said = await asyncio.to_thread(_run, "diff", str(folder), "--server", server)
            assert (code, said) == (0, "nothing changes\n"), said


async def test_a_running_control_plane_explains_and_is_compared_with_a_folder(tmp_path: Path) -> None:
    folder, other = tmp_path / "live", tmp_path / "new"
    rules = [m.rule("/a", "one"), m.rule("/b", "one")]
    for place, shown in ((folder, rules), (other, rules[:1])):
        place.mkdir()
        documents = [m.gateway_class(), m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1")]
        write_documents(place / "all.yaml", [*documents, m.route("r", shown)])
    async with Serve(folder, home=tmp_path) as serve:
        server = f"http://127.0.0.1:{serve.http_port}"
        code, said = await asyncio.to_thread(
            _run, "explain", "http://example.com/b?x=1", "-H", "x-one: 1", "--server", server
        )
        assert code == 0, said
        assert f"HTTPRoute demo/r  spec.rules[1].matches[0]  {folder}/all.yaml:" in said
        code, said = await asyncio.to_thread(_run, "explain", "http://example.com/c", "--server", server, "--json")
        assert (code, json.loads(said)["outcome"]["status"]) == (1, 404)
        code, said = await asyncio.to_thread(_run, "diff", str(folder), "--server", server)
        assert (code, said) == (0, "nothing changes\n")
        code, said = await asyncio.to_thread(_run, "diff", str(other), "--server", server)
        assert code == 1
        assert "- demo/edge http://*:80 /b" in said
    code, said = await asyncio.to_thread(_run, "explain", "http://example.com/c", "--server", server)
    assert code == 1
    assert "cannot be asked" in said
