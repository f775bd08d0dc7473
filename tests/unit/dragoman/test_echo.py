from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dragoman.echo import BadRequestError, parse_request
from tests.support.http import Connection, Response, fetch
from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.streams import Datagrams
from tests.support.waiting import until


async def answered(port: int = 0, unix_path: str | None = None) -> Response:
    async def ask() -> Response:
        return await fetch(port, "/a?b=c", unix_path=unix_path, within_s=1)

    return await until(ask, what="the echo backend")


async def test_it_serves_until_it_is_asked_to_end(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "dragoman.echo", "--listen", f"127.0.0.1:{port}", "--name", "shop"]
    process = ChildProcess(command, log=tmp_path / "log", cwd=tmp_path)
    try:
        told = (await answered(port)).json()
        assert (told["name"], told["method"], told["path"]) == ("shop", "GET", "/a?b=c")
        async with await Connection.to(port) as kept:
            await kept.request("/")
            with Datagrams(port) as client:
                assert await client.ask("hello") == "shop: hello"
            assert await process.stop() == 0
    finally:
        await process.kill()


async def test_a_socket_that_a_killed_predecessor_left_is_no_obstacle(tmp_path: Path) -> None:
    path = str(tmp_path / "echo.sock")
    command = [sys.executable, "-m", "dragoman.echo", "--listen", f"unix:{path}"]
    first = ChildProcess(command, log=tmp_path / "first", cwd=tmp_path)
    await answered(unix_path=path)
    await first.kill()
    second = ChildProcess(command, log=tmp_path / "second", cwd=tmp_path)
    try:
        assert (await answered(unix_path=path)).status == 200
    finally:
        await second.stop()


async def test_a_busy_port_is_said_to_be_busy(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "dragoman.echo", "--listen", f"127.0.0.1:{port}"]
    first = ChildProcess(command, log=tmp_path / "first", cwd=tmp_path)
    try:
        await answered(port)
        second = ChildProcess(command, log=tmp_path / "second", cwd=tmp_path)
        assert await second.ended() == 1
        assert f"cannot listen on 127.0.0.1:{port}" in second.output()
    finally:
        await first.stop()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 70_000, 431),
    ],
)
def test_what_is_not_http_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_request(bytearray(data))
    assert refused.value.status == status


def test_a_request_is_read_when_it_is_whole_and_not_before() -> None:
    whole = (
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;e=1\r\nc\r\n0\r\nt: 1\r\n\r\n"
    )
    for length in range(len(whole)):
        assert parse_request(bytearray(whole[:length])) is None
    parsed = parse_request(bytearray(whole + b"GET"))
    assert parsed is not None
    request, taken = parsed
    assert (request.method, request.path, request.body, taken) == ("POST", "/a", b"abc", len(whole))
