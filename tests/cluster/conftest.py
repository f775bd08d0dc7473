"""One cluster for all the tests of this folder, which run one after another: `make test-cluster`."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_faults import Faults
from tests.support.cluster_logs import PodLogs
from tests.support.cluster_rig import KUBECONFIG_VARIABLE, ROOT, Rig, reap, why_no_rig
from tests.support.cluster_scene import Scene, leave

PREFIX = "test"
KEPT_VARIABLE = "CLUSTER_KEPT"
LOGS = ROOT / "build" / "test-cluster"


_BARE = pytest.StashKey[bool]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts tests that bring controllers of their own before those of the installed product, which would interfere."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    config.stash[_BARE] = not all(map(_needs_product, ours))
    items.sort(key=_needs_product)


def _needs_product(item: pytest.Item) -> bool:
    return "product" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with the Gateway API's experimental channel: the one that the environment names, or the rig's."""
    if hasattr(request.config, "workerinput"):
        pytest.skip("tests in a cluster run one after another: make test-cluster")
    named = os.environ.get(KUBECONFIG_VARIABLE)
    if not named and (reason := why_no_rig()):
        pytest.skip(reason)
    with _ended_by_sigterm_too(), Cluster.existing(Path(named)) if named else _fresh(request) as cluster:
        if cluster.ours and not cluster.fresh and request.config.stash[_BARE]:
            cluster.uninstall()
        yield cluster


@pytest.fixture(scope="session")
def product(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the product installed by its chart."""
    with PodLogs(cluster.api, LOGS):
        cluster.install()
        if not cluster.fresh and cluster.ours:
            cluster.restart()
        yield cluster


@pytest_asyncio.fixture
async def scene(product: Cluster, namespace: str) -> Scene:
    """A Gateway that serves, in a namespace of the test's own."""
    return await Scene.make(product, namespace)


@pytest.fixture
def faults(cluster: Cluster) -> Faults:
    """What may be done to the cluster's own servers."""
    if not cluster.ours:
        pytest.skip("this test kills servers of the cluster, so it runs only in one of the rig's")
    return Faults(cluster)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, gone after it."""
    name = "t-" + re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:50].strip("-")
    cluster.namespace(name)
    yield name
    # It goes in the background: every test has a namespace of its own.
    leave(cluster, name)


def _fresh(request: pytest.FixtureRequest) -> Cluster:
    rig = Rig.find()
    assert rig is not None
    terminal = request.config.get_terminal_writer()
    rig.build("up", "echo-basic", "coredns", "helm", tell=lambda line: terminal.line(f"\n{line}"))
    if kept := os.environ.get(KEPT_VARIABLE):
        return Cluster.start(kept, keep=True)
    reap(rig, PREFIX)
    return Cluster.start(f"{PREFIX}-{os.getpid()}")


class _ended_by_sigterm_too:  # noqa: N801 (it is used as a function)
    """Lets SIGTERM end a run as Ctrl-C does, so that the cluster goes with it."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    @staticmethod
    def _interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt
