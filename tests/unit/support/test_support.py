from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
import redis.asyncio as client

from tests.support.certificates import Authority
from tests.support.dns import DnsServer
from tests.support.envoy import Envoy, validate
from tests.support.http import Connection, fetch
from tests.support.jwks_server import JwksServer
from tests.support.ports import free_port, free_ports
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey, jwks
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream

StartEnvoy = Callable[..., Awaitable[Envoy]]
StartUpstream = Callable[..., Awaitable[Upstream]]
NETWORK = "type.googleapis.com/envoy.extensions.filters.network"


def proxy(port: int, upstream: Upstream, *, http2: bool = False) -> dict[str, object]:
    """A bootstrap that proxies everything on `port` to one upstream."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    explicit = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    endpoint = {"endpoint": {"address": upstream.endpoint}}
    manager = {
        "@type": f"{NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "edge",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    cluster = {
        "name": "backend",
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": explicit}
        },
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


async def test_a_request_through_envoy_comes_back_described(start_envoy: StartEnvoy, upstream: Upstream) -> None:
    port = free_port()
    envoy = await start_envoy(proxy(port, upstream))
    response = await fetch(port, "/a/../b?q=1", method="POST", host="api.example.com", body=b"hello")
    told = response.json()
    assert (response.status, told["name"], told["method"], told["body"]) == (200, "echo", "POST", "hello")
    assert told["path"] == "/a/../b?q=1"
    assert told["headers"]["host"] == "api.example.com"
    assert (await envoy.stats("http.edge."))["http.edge.downstream_rq_2xx"] == 1
    assert (await envoy.config_dump())["configs"]


async def test_an_upstream_speaks_http2_in_clear_text(start_envoy: StartEnvoy, start_upstream: StartUpstream) -> None:
    upstream = await start_upstream("h2", http2=True)
    port = free_port()
    await start_envoy(proxy(port, upstream, http2=True))
    response = await fetch(port, "/a?b", method="POST", host="api.example.com", body=b"x" * 100_000)
    told = response.json()
    assert (told["name"], told["method"], told["path"], len(told["body"])) == ("h2", "POST", "/a?b", 100_000)
    assert told["headers"]["host"] == "api.example.com"
    assert upstream.requests[-1].version == "HTTP/2"
    upstream.fail(1, 503)
    assert (await fetch(port)).status == 503
    upstream.reset(1)
    assert (await fetch(port)).status == 503
    upstream.be_slow(0.01)
    assert (await fetch(port)).status == 200


def test_envoy_says_why_it_refuses_a_bootstrap() -> None:
    assert validate({"static_resources": {}})[0]
    accepted, message = validate({"static_resources": {"listeners": [{"name": "a", "nonsense": 1}]}})
    assert not accepted
    assert "nonsense" in message


async def test_a_probe_counts_every_failure_and_sees_when_an_answer_changes(upstream: Upstream) -> None:
    async with Probe(upstream.port, [Target("/a"), Target("/b")], rate_per_s=300) as probe:
        await probe.sees(lambda result: result.ok and not result.fresh, what="a kept-alive answer")
        upstream.answer(200, "changed")
        changed = await probe.sees(lambda result: result.response is not None and result.response.text == "changed")
        upstream.fail(2, 503)
        upstream.reset(1)
        await probe.sees(lambda result: result.response is None)
        await probe.sees(lambda result: result.ok)
    assert len(probe.failed) == 3
    first = probe.first(lambda result: result.response is not None and result.response.text == "changed")
    assert first is not None
    assert first.sent_at <= changed.sent_at
    with pytest.raises(AssertionError, match="3 of"):
        probe.assert_none_failed()


async def test_a_probe_reaches_its_rate(upstream: Upstream) -> None:
    async with Probe(upstream.port) as probe:
        for _ in range(3):
            sent = len(probe.results)
            await probe.sees(lambda result, sent=sent: len(probe.results) > sent + 50)
    probe.assert_none_failed(at_least_per_s=100)
    assert upstream.connections < len(probe.results) / 2


async def test_an_upstream_speaks_tls_and_over_a_unix_socket(
    start_upstream: StartUpstream, authority: Authority, tmp_path: Path
) -> None:
    certificate = authority.leaf("backend.example")
    secured = await start_upstream("tls", tls=certificate.server_context(tmp_path))
    trusting = authority.client_context()
    assert (await fetch(secured.port, host="backend.example", tls=trusting)).json()["name"] == "tls"
    with pytest.raises(ssl.SSLCertVerificationError):
        await fetch(secured.port, host="other.example", tls=trusting)
    path = str(tmp_path / "u.sock")
    await start_upstream("unix", unix_path=path)
    assert (await fetch(0, unix_path=path)).json()["name"] == "unix"


async def test_an_expired_certificate_is_expired(start_upstream: StartUpstream, tmp_path: Path) -> None:
    authority = Authority()
    expired = authority.leaf("a.example", valid_for=timedelta(days=-1))
    server = await start_upstream(tls=expired.server_context(tmp_path))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await fetch(server.port, host="a.example", tls=authority.client_context())


async def test_an_upstream_reads_chunked_bodies_and_bounds_what_it_is_sent(upstream: Upstream) -> None:
    async with await Connection.to(upstream.port) as connection:
        chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        headers = [("x-a", "1"), ("x-a", "2"), ("transfer-encoding", "chunked")]
        response = await connection.request("/", method="PUT", headers=headers, body=chunks)
        assert response.json()["body"] == "abcde"
        assert response.json()["headers"]["x-a"] == "1, 2"
        refused = await connection.request("/", headers={"content-length": "99999999"})
        assert refused.status == 413
    with pytest.raises(ConnectionResetError):
        await connection.request("/")


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
def test_tokens_verify_with_their_jwks(algorithm: str) -> None:
    key = SigningKey.make("k", algorithm)
    token = key.token({"scope": "read"}, aud="api")
    public = jwt.PyJWKSet.from_dict(jwks(key))["k"]
    claims = jwt.decode(token, public, [algorithm], audience="api")
    assert (claims["sub"], claims["scope"]) == ("alice", "read")
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(key.token(expires_in_s=-10), public, [algorithm])


async def test_a_jwks_endpoint_rotates_fails_and_recovers(issuer: JwksServer, signing_key: SigningKey) -> None:
    assert (await fetch(issuer.port)).json()["keys"][0]["kid"] == signing_key.kid
    issuer.fail()
    assert (await fetch(issuer.port)).status == 500
    issuer.rotate(SigningKey.make("key-2"))
    assert (await fetch(issuer.port)).json()["keys"][0]["kid"] == "key-2"
    assert issuer.fetches == 3
    issuer.hang()
    with pytest.raises(TimeoutError):
        await fetch(issuer.port, within_s=0.05)


async def test_redis_can_be_killed_frozen_and_brought_back(redis_server: RedisServer) -> None:
    async with client.Redis.from_url(redis_server.url, socket_timeout=0.1) as store:
        await store.set("a", "1")
        redis_server.pause()
        with pytest.raises(Exception, match=r"(?i)time"):
            await store.get("a")
        redis_server.resume()
    await redis_server.restart()
    async with client.Redis.from_url(redis_server.unix_url) as store:
        assert await store.get("a") is None


async def test_a_dns_server_answers_what_it_is_told(dns_server: DnsServer) -> None:
    dns_server.set("api.example.com", "127.0.0.1", "::1")
    ask = (
        "import sys; from dnslib import DNSRecord;"
        "print(DNSRecord.parse(DNSRecord.question(sys.argv[2]).send('127.0.0.1', int(sys.argv[1]), timeout=5)).short())"
    )

    async def resolve(name: str) -> str:
        command = [sys.executable, "-c", ask, str(dns_server.port), name]
        return (await asyncio.to_thread(subprocess.check_output, command, text=True)).strip()

    assert await resolve("api.example.com") == "127.0.0.1"
    assert await resolve("nobody.example.com") == ""
    assert dns_server.queries[0] == ("api.example.com", "A")


def test_no_two_processes_are_given_the_same_port() -> None:
    mine = free_ports(20)
    script = "from tests.support.ports import free_ports; print(*free_ports(20))"
    theirs = subprocess.check_output([sys.executable, "-c", script], text=True, cwd="/").split()
    assert len(set(mine) | {int(port) for port in theirs}) == 40
