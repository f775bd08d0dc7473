"""Requests through one Envoy worker, guarded in each way: CPU of Envoy and of the services, and requests a second."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.cpu import cpu_s
from benchmarks.load import Load, load
from benchmarks.manifests import GATEWAY, backend, dump, gateway
from benchmarks.peers import Peers
from benchmarks.rows import Row
from benchmarks.scene import dragoman, impatient, serve_process, upstream
from controlplane.provision.address import TcpAddress, UnixAddress
from controlplane.provision.bootstrap import bootstrap
from ext_authz.keys import NewKey, StoreLocation, create_key
from tests.support.envoy import Envoy
from tests.support.http import Connection
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey, bearer, jwks
from tests.support.waiting import until

_HOST = "guarded.example.com"
_REQUESTS = 4_000
_ROUNDS = 5
_CONNECTIONS = 32
_JWT_US = 3.0
_AGAINST_GO = 1.5
_INLINE_KEY = "0123456789abcdef-for-this-measurement-alone"
_PLENTY = {"limit": {"requests": 2_000_000_000, "unit": "Hour"}}
# Route → how it is called in the table.
_WAYS = {
    "open": "no policy",
    "jwt": "JWT (native)",
    "keys": "API key in a Secret (native)",
    "local": "local limit (native)",
    "consumers": "API key of a consumer (ext_authz)",
    "global": "global limit",
    "jwt-global": "JWT and global limit",
    "both": "API key of a consumer and global limit",
}
# No policy, and yet a token: what it costs to carry is not the policy's.
_CARRIED = "carried"
_ASKED_FOR_NOTHING = ("ratelimit.error", "ratelimit.failure_mode_allowed", "ext_authz.error")


@dataclass(frozen=True, slots=True)
class Guarded:
    """A gateway whose routes are each guarded in one way, and what is to be measured of it."""

    port: int
    envoy: Envoy
    services: tuple[int, ...]
    headers: Mapping[str, Mapping[str, str]]

    async def send(self, way: str, requests: int) -> Load:
        """Sends requests that pass; raises RuntimeError where some do not."""
        done = await load(
            self.port,
            host=_HOST,
            path=f"/{way}",
            requests=requests,
            connections=_CONNECTIONS,
            headers=self.headers.get(way, {}),
        )
        if done.failed:
            raise RuntimeError(f"{done.failed} of {requests} requests to /{way} failed")
        return done

    async def undecided(self) -> int:
        """Returns how many requests have passed without a decision, since a service failed or was too slow."""
        found = await self.envoy.stats()
        return int(sum(value for name, value in found.items() if name.endswith(_ASKED_FOR_NOTHING)))


@dataclass(slots=True)
class _Cost:
    """The least that a way has cost, in some rounds."""

    envoy_us: float = float("inf")
    all_us: float = float("inf")
    per_s: float = 0.0
    rounds: list[float] = field(default_factory=list[float])

    async def measure(self, scene: Guarded, way: str) -> None:
        envoy, everything = cpu_s(scene.envoy.process.pid), cpu_s(*scene.services)
        done = await scene.send(way, _REQUESTS)
        spent = cpu_s(scene.envoy.process.pid) - envoy
        all_spent = spent + cpu_s(*scene.services) - everything
        self.rounds.append(spent / _REQUESTS * 1e6)
        # Noise of other processes only ever adds.
        self.envoy_us = min(self.envoy_us, spent / _REQUESTS * 1e6)
        self.all_us = min(self.all_us, all_spent / _REQUESTS * 1e6)
        self.per_s = max(self.per_s, done.per_s)


async def measure(given: Peers) -> list[Row]:
    """Measures each way, in turns; with both peers, them in our services' place too."""
    rows = await _ours()
    if given.ratelimit is not None and given.authz is not None:
        rows += await _against(given.ratelimit, given.authz)
    return rows


async def _ours() -> list[Row]:
    async with guarded() as scene:
        costs = await _in_turns([(scene, way) for way in _WAYS])
        pairs = await _in_turns([(scene, _CARRIED), (scene, "jwt")], rounds=3 * _ROUNDS)
    rows: list[Row] = []
    for (way, title), cost in zip(_WAYS.items(), costs, strict=True):
        counted = " in memory" if "global" in way else ""
        rows.append(Row(f"{title}{counted}: CPU of Envoy and services a request", cost.all_us, "µs"))
        rows.append(Row(f"{title}{counted}: through one Envoy worker", cost.per_s, "requests/s"))
    # Each difference is of two loads that were next to each other, so that what others do shows in both.
    more_us = statistics.median(jwt - carried for carried, jwt in zip(*(pair.rounds for pair in pairs), strict=True))
    return [*rows, Row("pure-JWT route: Envoy CPU over the same request without a policy", more_us, "µs", _JWT_US)]


async def _against(ratelimit: Path, authz: Path) -> list[Row]:
    async with (
        RedisServer() as redis,
        guarded(redis=redis) as ours,
        guarded(redis=redis, ratelimit=ratelimit, authz=authz) as go,
    ):
        native, asked, theirs = await _in_turns([(ours, "jwt-global"), (ours, "both"), (go, "both")])
    rows: list[Row] = []
    for title, cost in (
        ("JWT and global limit in Redis", native),
        ("API key of a consumer and global limit in Redis", asked),
        ("the same config with Go ext_authz and envoyproxy/ratelimit", theirs),
    ):
        rows.append(Row(f"{title}: CPU of Envoy and services a request", cost.all_us, "µs"))
        rows.append(Row(f"{title}: through one Envoy worker", cost.per_s, "requests/s"))
    return [
        *rows,
        Row(
            "JWT and global limit against the Go services: requests/s",
            native.per_s / theirs.per_s,
            "×",
            None,
            _AGAINST_GO,
        ),
        Row("API key and global limit against the Go services: requests/s", asked.per_s / theirs.per_s, "×"),
        Row("JWT and global limit against the Go services: CPU", native.all_us / theirs.all_us, "×"),
        Row("API key and global limit against the Go services: CPU", asked.all_us / theirs.all_us, "×"),
    ]


async def _in_turns(what: Sequence[tuple[Guarded, str]], *, rounds: int = _ROUNDS) -> list[_Cost]:
    costs = [_Cost() for _ in what]
    before = [await scene.undecided() for scene, _ in what]
    for scene, way in what:
        await scene.send(way, _REQUESTS // 4)
    for _ in range(rounds):
        for cost, (scene, way) in zip(costs, what, strict=True):
            await cost.measure(scene, way)
    for earlier, (scene, way) in zip(before, what, strict=True):
        undecided = await scene.undecided() - earlier
        if undecided > _REQUESTS // 100:
            raise RuntimeError(f"{undecided} requests passed undecided, among them some to /{way}")
    return costs


@asynccontextmanager
async def guarded(
    *, redis: RedisServer | None = None, ratelimit: Path | None = None, authz: Path | None = None
) -> AsyncIterator[Guarded]:
    """Sets the scene: the product's own processes, one worker each, or these binaries in the services' place."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgb-")))
        port, upstream_port, xds_port, http_port = free_ports(4)
        headers = await _write(home, port, upstream_port)
        asked = {name: home / f"{name}.sock" for name in ("authz", "ratelimit")}
        services: list[ChildProcess] = []
        if authz is not None:
            process, address = await stack.enter_async_context(peers.authorizer(authz, home))
            services.append(process)
            asked["authz"] = Path(address.path)
        if ratelimit is not None and redis is not None:
            configs = peers.limits_of(home / "config")
            process, address = await stack.enter_async_context(peers.limiter(ratelimit, configs, redis, home))
            services.append(process)
            asked["ratelimit"] = Path(address.path)
        sockets = [f"--{name}=unix:{path}" for name, path in asked.items()]
        plane = serve_process(home / "config", xds_port, http_port, home, *sockets)
        stack.push_async_callback(plane.stop)
        xds = ("--xds", f"127.0.0.1:{xds_port}")
        ours: dict[str, tuple[str, ...]] = {}
        if authz is None:
            ours["authz"] = ("--keys", str(home / "keys.db"))
        if ratelimit is None:
            ours["ratelimit"] = ("--redis", redis.unix_url) if redis is not None else ()
        for name, more in ours.items():
            process = dragoman(name, "--listen", f"unix:{asked[name]}", *xds, *more, home=home)
            stack.push_async_callback(process.stop)
            services.append(process)
            await peers.listening(process, asked[name])
        document = bootstrap(GATEWAY, xds=TcpAddress("127.0.0.1", xds_port), admin=UnixAddress(f"{home}/admin.sock"))
        await stack.enter_async_context(Envoy(upstream(upstream_port), log_level="warning"))
        envoy = await stack.enter_async_context(Envoy(impatient(document), log_level="warning"))
        pids = [process.pid for process in services] + ([redis.pid] if redis is not None else [])
        scene = Guarded(port, envoy, tuple(pids), headers)
        for way in (*_WAYS, _CARRIED):
            await _answers(scene, way, plane)
        yield scene


async def _answers(scene: Guarded, way: str, plane: ChildProcess) -> None:
    async def answered() -> bool:
        async with await Connection.to(scene.port) as connection:
            headers = dict(scene.headers.get(way, {}))
            return (await connection.request(f"/{way}", host=_HOST, headers=headers)).status == 200

    await until(answered, within_s=30.0, what=f"/{way} to answer 200", detail=plane.tail)


async def _write(home: Path, port: int, upstream_port: int) -> dict[str, Mapping[str, str]]:
    """Writes the manifests and makes a key; returns the headers with which each route lets a request pass."""
    key = SigningKey.make("bench", "RS256")
    made = await asyncio.to_thread(create_key, StoreLocation(home / "keys.db"), NewKey("acme"))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": _named("clients"), "stringData": {"acme": _INLINE_KEY}}
    inline = {"type": "Inline", "inline": json.dumps(jwks(key))}
    from_header = [{"headers": ["x-api-key"]}]
    jwt = {"jwt": {"providers": [{"name": "issuer", "issuer": "https://issuer.example", "localJWKS": inline}]}}
    consumers = {"consumers": {"extractFrom": from_header}}
    shared = {"rateLimit": {"type": "Global", "global": {"rules": [_PLENTY]}}}
    documents = [
        *gateway(port),
        *backend(0, upstream_port),
        *(_route(way) for way in (*_WAYS, _CARRIED)),
        secret,
        _policy("SecurityPolicy", "jwt", jwt),
        _policy(
            "SecurityPolicy",
            "keys",
            {"apiKeyAuth": {"credentialRefs": [{"name": "clients"}], "extractFrom": from_header}},
        ),
        _policy("SecurityPolicy", "consumers", consumers),
        _policy("BackendTrafficPolicy", "local", {"rateLimit": {"type": "Local", "local": {"rules": [_PLENTY]}}}),
        _policy("BackendTrafficPolicy", "global", shared),
        _policy("SecurityPolicy", "jwt-global", jwt),
        _policy("BackendTrafficPolicy", "jwt-global", shared),
        _policy("SecurityPolicy", "both", consumers),
        _policy("BackendTrafficPolicy", "both", shared),
    ]
    (home / "config").mkdir()
    (home / "config" / "all.yaml").write_text(dump(documents), "utf-8")
    token, consumer = bearer(key.token()), {"x-api-key": made.key}
    native = {"x-api-key": _INLINE_KEY}
    return {_CARRIED: token, "jwt": token, "jwt-global": token, "keys": native, "consumers": consumer, "both": consumer}


def _named(name: str) -> dict[str, str]:
    return {"namespace": GATEWAY.partition("/")[0], "name": name}


def _route(way: str) -> dict[str, Any]:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": f"/{way}"}}],
        "backendRefs": [{"name": "backend-0", "port": 80}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _named(way),
        "spec": {"parentRefs": [{"name": "edge"}], "hostnames": [_HOST], "rules": [rule]},
    }


def _policy(kind: str, way: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": way}
    return {
        "apiVersion": "dragoman.dev/v1alpha1",
        "kind": kind,
        "metadata": _named(way),
        "spec": {"targetRefs": [target], **spec},
    }
