"""A folder that is big enough for helper processes: the first read of it, and all of its files changing at once."""

from __future__ import annotations

from pathlib import Path

from tests.support import manifests as m
from tests.support.dragoman import Serve
from tests.support.gateway import GATEWAY_CLASS, write_documents
from tests.support.http import Connection
from tests.support.ports import free_port
from tests.support.upstream import Upstream
from tests.support.waiting import until

_ROUTES = 600


def _write_routes(folder: Path, path: str) -> None:
    for number in range(_ROUTES):
        route = m.route(f"r{number}", [m.to_backend(path, "echo")], hostnames=[f"h{number}.example.com"])
        write_documents(folder / f"route-{number:04}.yaml", [route])


def _children(pid: int) -> str:
    return "".join(each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children"))


async def _until_hosts_answer(port: int, path: str) -> None:
    async def answered(number: int) -> bool:
        async with await Connection.to(port) as connection:
            return (await connection.request(path, host=f"h{number}.example.com")).status == 200

    for number in range(_ROUTES - 1, 0, -37):
        await until(lambda at=number: answered(at), what=f"h{number}.example.com{path}", within_s=30)


async def test_a_big_folder_is_served_whole_with_its_faults_and_no_process_is_left_behind(
    tmp_path: Path, upstream: Upstream
) -> None:
    folder, port = tmp_path / "config", free_port()
    folder.mkdir()
    listeners = [{"name": "http", "port": port, "protocol": "HTTP"}]
    base = [GATEWAY_CLASS, m.gateway(listeners=listeners), m.backend("echo", upstream.port)]
    write_documents(folder / "base.yaml", base)
    _write_routes(folder, "/one")
    write_documents(folder / "broken.yaml", "a: 1\n---\nb: [\n")
    write_documents(folder / "twice.yaml", [m.route("r7", [m.to_backend("/two", "echo")])])
    async with Serve(folder, home=tmp_path) as serve, serve.envoy("demo/edge"):
        await _until_hosts_answer(port, "/one")
        findings = (await serve.status())["findings"]
        assert [(Path(each["file"]).name, each["line"]) for each in findings] == [
            ("broken.yaml", 1),
            ("broken.yaml", 4),
            ("twice.yaml", 1),
        ]
        _write_routes(folder, "/moved")
        await _until_hosts_answer(port, "/moved")
        assert _children(serve.process.pid) == ""
        assert "helper" not in serve.process.output()
