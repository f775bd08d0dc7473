"""The example of limits does what its lines say, with the rate limit service beside the control plane."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import yaml

from controlplane.api.gateway import Gateway as GatewayObject
from controlplane.api.load import load
from controlplane.provision.address import TcpAddress
from controlplane.provision.echoes import echoes
from controlplane.provision.tries import TriedRoute, tries
from tests.e2e.policy_services import ratelimit
from tests.e2e.test_examples import EXAMPLES, moved
from tests.support.curl import parse_curl
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream


async def test_the_example_of_limits_does_what_its_lines_say(tmp_path: Path) -> None:
    text = (EXAMPLES / "rate-limits" / "limits.yaml").read_text("utf-8")
    documents = moved(list(yaml.safe_load_all(text)), tmp_path)
    objects = [loaded.object for loaded in map(load, documents)]
    gateways = {each.key: each for each in objects if isinstance(each, GatewayObject)}
    ((key, (listener,)),) = ((key, each.spec.listeners) for key, each in gateways.items())
    async with AsyncExitStack() as stack:
        for echo in echoes(objects):
            assert isinstance(echo.address, TcpAddress)
            await stack.enter_async_context(Upstream(echo.name, port=echo.address.port))
        gateway = await stack.enter_async_context(Gateway({"all.yaml": documents}))
        await stack.enter_async_context(ratelimit(gateway))
        # Closed while the service cannot be reached.
        await gateway.answers("/points", port=listener.port, headers={"x-tenant": "z"})
        assert gateway.findings() == []
        bound = {(f"{key.namespace}/{key.name}", listener.port): (("127.0.0.1", gateway.port(listener.port)),)}
        found = tries([each for each in objects if isinstance(each, TriedRoute)], gateways, bound)
        assert len(found) == 4
        for each in found:
            answers = [answer.status for answer in await parse_curl(each.arguments).run()]
            expected = re.match(r"200 (three|two|ten|about) .*then 429", each.expect)
            assert expected is not None
            times = {"three": 3, "two": 2, "ten": 10}.get(expected[1])
            if times is None:
                # What a response costs is counted when it is done, and some are on their way by then.
                assert answers[:2] == [200, 200], answers
            else:
                assert answers == [200] * times + [429], (each.command, answers)
