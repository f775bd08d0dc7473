# ruff: noqa: T201
"""Starts a cluster of the rig with the product in it, to look around: `up`, `down`; `check` says why there can be none.

The rig's programs are built where they are missing. CLUSTER_NAME names the cluster (several can be up at once).
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_rig import Rig, why_no_rig


def main() -> int:
    """Returns the exit code: 0, 1 where something failed, or 3 where no cluster can be started here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["check", "build", "up", "down"])
    command = parser.parse_args().command
    name = os.environ.get("CLUSTER_NAME", "dragoman")
    reason = why_no_rig()
    rig = Rig.find()
    if reason is not None or rig is None:
        print(reason)
        return 3
    if command == "build":
        rig.build("up", "conformance", "helm")
    elif command == "up":
        return _up(rig, name)
    elif command == "down":
        rig.run("down", name=name)
    return 0


def _up(rig: Rig, name: str) -> int:
    rig.build("up", "echo-basic", "coredns", "helm")
    with Cluster.start(name, keep=True) as cluster:
        try:
            cluster.install()
        except AssertionError as fault:
            print(fault, *fault.__notes__, sep="\n")
            return 1
        if not cluster.fresh:
            cluster.restart()
    state = rig.home / "run" / name
    print(f"The cluster {name} is up, with the product in the namespace {NAMESPACE}.")
    print(f"    . {state}/env.sh")
    print("    ip netns exec $NETNS kubectl get pods -A")
    print(f"    make cluster-down{'' if name == 'dragoman' else f' CLUSTER_NAME={name}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
