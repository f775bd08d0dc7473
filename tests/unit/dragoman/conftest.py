"""The event loops of these tests: the gRPC worker runs on uvloop, and child processes are watched by either."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_grpc_worker"):
        return {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_processes.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
