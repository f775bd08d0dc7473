"""A control plane that was killed serves again what it served, though its folder is gone; and catches up afterwards."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.dragoman import Serve
from tests.support.envoy import Envoy
from tests.support.gateway import GATEWAY_CLASS, write_documents
from tests.support.http import Connection, fetch
from tests.support.ports import free_ports
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream
from tests.support.waiting import until

GATEWAY = "demo/edge"
SERVED_WITHIN_S = 60.0  # Of Envoy's own start, too, on a busy machine; the benchmark says how long it really takes.


@dataclass(slots=True)
class Scene:
    """A Gateway with a route on HTTP, and on HTTPS where it has a port for that."""

    home: Path
    upstream: Upstream
    serve: Serve
    http: int
    https: int | None
    authority: Authority = field(default_factory=Authority)

    @property
    def folder(self) -> Path:
        return self.home / "config"

    @property
    def kept(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted((self.home / "state").glob("kept.db*")))

    def write(self, *paths: str) -> None:
        routes = [m.route(f"r{path.strip('/')}", [m.to_backend(path, "echo")]) for path in paths]
        write_documents(self.folder / "routes.yaml", routes, beside=self.home / "routes.new")

    def write_gateway(self) -> str:
        """Writes the Gateway; returns the private key of its certificate."""
        listeners: list[Any] = [{"name": "http", "port": self.http, "protocol": "HTTP"}]
        leaf = self.authority.leaf("a.example.com")
        if self.https is not None:
            tls = {"certificateRefs": [{"name": "cert"}]}
            listeners.append({"name": "https", "port": self.https, "protocol": "HTTPS", "tls": tls})
        documents = [GATEWAY_CLASS, m.gateway(listeners=listeners), m.backend("echo", self.upstream.port)]
        documents += [leaf.secret("demo", "cert")] if self.https is not None else []
        write_documents(self.folder / "gateway.yaml", documents, beside=self.home / "gateway.new")
        return leaf.key_pem

    async def kill_and_hide(self) -> None:
        """Kills the control plane and takes its folder away."""
        await self.serve.kill()
        os.rename(self.folder, self.home / "away")

    def bring_back(self) -> None:
        os.rename(self.home / "away", self.folder)

    async def health(self) -> str:
        answer = await fetch(self.serve.http_port, "/health/ready")
        assert answer.status == 200, answer.text
        return answer.json()["checks"]["config"]

    async def says(self, words: str) -> None:
        async def said() -> bool:
            return words in await self.health()

        await until(said, what=f"the control plane to say {words!r}")

    async def is_kept(self, *paths: str) -> None:
        """Waits until the routes are in the state folder."""

        def found() -> bool:
            text = self.kept
            return all(path.encode() in text for path in paths)

        await until(found, what=f"{paths} to be kept")

    async def answers(self, path: str, status: int = 200, *, tls: ssl.SSLContext | None = None) -> None:
        port = self.https if tls is not None else self.http
        assert port is not None

        async def answered() -> bool:
            async with await Connection.to(port, tls=tls, sni="a.example.com" if tls else None) as connection:
                return (await connection.request(path, host="a.example.com")).status == status

        await until(answered, what=f"{path} to answer {status}", within_s=SERVED_WITHIN_S)


@asynccontextmanager
async def scene(
    home: Path, *arguments: str, https: bool = False, paths: Sequence[str] = ("/one",)
) -> AsyncIterator[Scene]:
    (home / "config").mkdir()
    http, secure = free_ports(2)
    async with Upstream("echo") as upstream:
        serve = Serve(home / "config", "--state", str(home / "state"), *arguments, home=home)
        scene = Scene(home, upstream, serve, http, secure if https else None)
        scene.write_gateway()
        scene.write(*paths)
        async with serve:
            yield scene


async def changes_of(envoy: Envoy) -> dict[str, int]:
    """What Envoy has taken: each of these counts a resource that is new, other than before, or gone."""
    stats = await envoy.stats()
    names = ("listener_added", "listener_modified", "listener_removed", "cluster_added", "cluster_modified")
    wanted = (*names, "cluster_removed", "config_reload", "ssl_context_update_by_sds")
    return {name: value for name, value in stats.items() if name.rpartition(".")[2] in wanted}


async def test_a_new_envoy_is_served_what_was_kept_while_the_folder_is_gone(tmp_path: Path) -> None:
    async with scene(tmp_path, paths=["/one", "/two"]) as it:
        await it.is_kept("/one", "/two")
        await it.kill_and_hide()
        await it.serve.start(within_s=SERVED_WITHIN_S)
        async with it.serve.envoy(GATEWAY):
            await it.answers("/one")
            await it.answers("/two")
            assert (await it.health()).startswith("serving the snapshot that was kept at 20")
            await it.says(f"the source is not read yet ({it.folder}: cannot be listed)")
            it.bring_back()
            it.write("/one", "/three")
            await it.answers("/three")
            await it.answers("/two", 404)
            assert await it.health() == "ok"


async def test_an_envoy_that_stays_is_sent_nothing_that_it_has_and_fails_no_request(tmp_path: Path) -> None:
    async with scene(tmp_path, https=True) as it, it.serve.envoy(GATEWAY) as envoy:
        tls = it.authority.client_context()
        await it.answers("/one", tls=tls)
        await it.is_kept("/one")
        before = await changes_of(envoy)
        async with Probe(it.http, [Target("/one", "a.example.com")], rate_per_s=60) as probe:
            await it.kill_and_hide()
            await it.serve.start(within_s=SERVED_WITHIN_S)
            await envoy.stat_reaches("control_plane.connected_state", 1)
            assert "without 1 resources that hold secrets" in await it.health()
            await it.answers("/one", tls=tls)
            it.bring_back()
            await it.says("ok")
        probe.assert_none_failed(at_least_per_s=1)
        await it.answers("/one", tls=tls)
        assert await changes_of(envoy) == before
        it.write("/two")
        await it.answers("/two", tls=tls)


async def test_a_change_that_came_just_before_the_end_is_not_taken_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as it, it.serve.envoy(GATEWAY) as envoy:
        await it.answers("/one")
        await it.is_kept("/one")
        it.write("/one", "/two")
        await it.answers("/two")
        # Killed sooner than it can be kept.
        await it.kill_and_hide()
        await it.serve.start(within_s=SERVED_WITHIN_S)
        await envoy.stat_reaches("control_plane.connected_state", 1)
        async with Probe(it.http, [Target("/two", "a.example.com")], rate_per_s=60) as probe:
            it.bring_back()
            await it.says("ok")
        probe.assert_none_failed(at_least_per_s=1)


async def test_private_keys_are_not_in_the_state_folder(tmp_path: Path) -> None:
    async with scene(tmp_path, https=True) as it:
        line = it.write_gateway().splitlines()[1].encode()
        await it.is_kept("/one", "demo/cert")
        everything = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
        assert b"/one" in everything
        assert line not in everything
        assert base64.b64encode(line)[4:-4] not in everything


async def test_with_a_key_a_new_envoy_gets_its_certificate_too(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    async with scene(tmp_path, "--state-key", str(key), https=True) as it:
        await it.is_kept("demo/cert")
        assert b"/one" not in it.kept
        await it.kill_and_hide()
        await it.serve.start(within_s=SERVED_WITHIN_S)
        async with it.serve.envoy(GATEWAY):
            await it.answers("/one", tls=it.authority.client_context())
            assert "hold secrets" not in await it.health()


async def test_without_anything_kept_a_folder_that_is_gone_ends_the_start(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "nowhere", "--state", str(tmp_path / "state"), home=tmp_path)
    await serve.start(ready=False)
    try:
        await until(lambda: serve.process.exit_code is not None, what="the end")
        assert serve.process.exit_code == 1
        assert "is not a folder, and nothing was kept of it" in serve.process.output()
    finally:
        await serve.stop()
