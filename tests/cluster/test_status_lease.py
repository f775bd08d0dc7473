"""Who leads among processes that stand for election at a real API server."""

from __future__ import annotations

import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.cluster_faults import Faults
from tests.support.process import ChildProcess

ELECTOR = str(Path(__file__).with_name("elector.py"))
# So long that a busy machine makes no leader miss it.
LEASE_S = 5.0


def stand(cluster: Cluster, namespace: str, name: str) -> ChildProcess:
    arguments = [ELECTOR, str(cluster.kubeconfig), namespace, name, str(LEASE_S)]
    return cluster.spawn(sys.executable, *arguments, log=f"{namespace}-{name}.log")


def said(process: ChildProcess) -> list[str]:
    return [line for line in process.output().splitlines() if line.startswith("leads")]


def lease(cluster: Cluster, namespace: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": "elected"}
    found = cluster.api.read({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
    assert found is not None
    return found


def held_s(cluster: Cluster, namespace: str) -> float:
    spec = lease(cluster, namespace)["spec"]
    since, renewed = (datetime.fromisoformat(spec[name]) for name in ("acquireTime", "renewTime"))
    return (renewed - since).total_seconds()


def test_a_leader_that_is_killed_is_followed_when_its_lease_has_run_out(cluster: Cluster, namespace: str) -> None:
    one = stand(cluster, namespace, "one")
    cluster.wait(lambda: said(one) == ["leads"], what="the first to lead", detail=one.tail)
    two = stand(cluster, namespace, "two")
    cluster.wait(lambda: held_s(cluster, namespace) > 2 * LEASE_S, what="two leases to pass", detail=two.tail)
    assert (said(one), said(two)) == (["leads"], [])
    killed = time.monotonic()
    one.signal(signal.SIGKILL)
    cluster.wait(lambda: said(two) == ["leads"], what="the second to lead", within_s=3 * LEASE_S, detail=two.tail)
    assert time.monotonic() - killed > 0.3 * LEASE_S
    found = lease(cluster, namespace)
    assert found["spec"]["holderIdentity"] == "two"
    assert found["metadata"]["annotations"] == {"dragoman.dev/address": "two:1"}


def test_a_leader_that_the_api_server_leaves_alone_stops_leading_and_comes_back(
    cluster: Cluster, namespace: str, faults: Faults
) -> None:
    one = stand(cluster, namespace, "one")
    cluster.wait(lambda: said(one) == ["leads"], what="somebody to lead", detail=one.tail)
    with faults.no_api_server():
        cluster.wait(
            lambda: said(one) == ["leads", "leads no more"], what="the end", within_s=2 * LEASE_S, detail=one.tail
        )
    cluster.wait(lambda: said(one)[-1] == "leads", what="somebody to lead", within_s=60, detail=one.tail)


def test_a_leader_that_is_frozen_leads_no_more_when_it_wakes(cluster: Cluster, namespace: str) -> None:
    one = stand(cluster, namespace, "one")
    cluster.wait(lambda: said(one) == ["leads"], what="the first to lead", detail=one.tail)
    two = stand(cluster, namespace, "two")
    one.signal(signal.SIGSTOP)
    cluster.wait(lambda: said(two) == ["leads"], what="the second to lead", within_s=3 * LEASE_S, detail=two.tail)
    one.signal(signal.SIGCONT)
    cluster.wait(lambda: said(one) == ["leads", "leads no more"], what="the first to notice", detail=one.tail)
    assert said(two) == ["leads"]
