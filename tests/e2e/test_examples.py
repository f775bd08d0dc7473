"""Every example does what the comments beside its curl lines say."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.gateway import Gateway
from controlplane.api.load import load
from controlplane.provision.address import TcpAddress
from controlplane.provision.binding import Wanted, bind
from controlplane.provision.echoes import echoes
from controlplane.provision.tries import TriedRoute, Try, tries
from tests.support.curl import parse_curl
from tests.support.dragoman import Serve
from tests.support.ports import free_port
from tests.support.streams import DatagramServer, ask_datagram
from tests.support.upstream import Upstream
from tests.support.waiting import until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# These need the services beside the control plane; `dragoman up` brings them, and is tested with them.
WITH_SERVICES = {"quickstart", "consumers", "rate-limits", "rate-limit-quota", "plans"}
# No manifests: tests/unit/ratelimit/test_config_examples.py holds these.
OTHERS = {"ratelimit"}
FOLDERS = {path.parent.name for path in EXAMPLES.glob("*/*.yaml")}
NAMES = sorted(FOLDERS - WITH_SERVICES - OTHERS)


def moved(documents: list[Any], folder: Path) -> list[Any]:
    """The same manifests with free ports, and sockets in `folder`: tests run side by side."""
    ports: dict[int, int] = {}

    def walk(value: Any, inside: str) -> Any:
        if isinstance(value, dict):
            items: dict[str, Any] = value
            return {key: walk(item, f"{inside}.{key}") for key, item in items.items()}
        if isinstance(value, list):
            return [walk(item, inside) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, str) and value.startswith("/tmp/"):
            return str(folder / Path(value).name)
        bound = re.search(r"listeners\.port$|EndpointSlice\.ports\.port$|\.(ip|fqdn)\.port$", inside)
        return ports.setdefault(int(value), free_port()) if bound else value

    return [walk(document, document["kind"]) for document in documents]


@pytest.mark.parametrize("name", NAMES)
async def test_an_example_answers_as_it_says(name: str, tmp_path: Path) -> None:
    texts = [path.read_text("utf-8") for path in sorted((EXAMPLES / name).glob("*.yaml"))]
    documents = moved([document for text in texts for document in yaml.safe_load_all(text)], tmp_path)
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(documents), "utf-8")
    objects = [loaded.object for loaded in map(load, documents)]
    gateways = {each.key: each for each in objects if isinstance(each, Gateway)}
    wanted = {
        f"{key.namespace}/{key.name}": Wanted((), tuple(listener.port for listener in gateway.spec.listeners))
        for key, gateway in gateways.items()
    }
    datagrams = [
        (f"{key.namespace}/{key.name}", listener.port)
        for key, gateway in gateways.items()
        for listener in gateway.spec.listeners
        if listener.protocol == "UDP"
    ]
    async with AsyncExitStack() as stack:
        for echo in echoes(objects):
            port = echo.address.port if isinstance(echo.address, TcpAddress) else None
            unix_path = None if isinstance(echo.address, TcpAddress) else echo.address.path
            await stack.enter_async_context(Upstream(echo.name, port=port, unix_path=unix_path))
            if datagrams and port is not None:
                await stack.enter_async_context(DatagramServer(echo.name, port=port))
        serve = await stack.enter_async_context(Serve(folder, home=tmp_path))
        for gateway in wanted:
            await stack.enter_async_context(serve.envoy(gateway))
        found = tries([each for each in objects if isinstance(each, TriedRoute)], gateways, bind(wanted).bound)
        assert found
        for each in found:
            await check(each)
        for port in datagrams:
            ((_, number), *_) = bind(wanted).bound[port]
            assert (await until(lambda to=number: ask_datagram(to), what="datagrams")).endswith("hello")


async def check(line: Try) -> None:
    """Runs a line; its comment begins with the status to expect, and `then NNN` is that of the last request."""
    responses = await parse_curl(line.arguments).run()
    expected = re.match(r"(\d{3})(?:.*then (\d{3}))?", line.expect)
    assert expected is not None, f"{line.command} says nothing of what is to be expected"
    *first, last = [response.status for response in responses]
    shown = f"{line.command}\n{responses[-1].text}"
    assert set(first) <= {int(expected.group(1))}, shown
    assert last == int(expected.group(2) or expected.group(1)), shown
