# ruff: noqa: T201
"""Runs the Gateway API's conformance suite on the product, installed by its chart in a cluster of the rig.

The whole suite writes its report to docs/conformance/; the exit code is 1 when anything failed, was skipped (tests of a
mesh are not counted) or was not claimed. Logs are in build/conformance/.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from dragoman import __version__
from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_logs import PodLogs
from tests.support.cluster_rig import ROOT, Rig, why_no_rig
from tests.support.cluster_scene import GATEWAY_CLASS, manifest

PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP")
DEFAULT_NAME = "conformance"
REPORT = ROOT / "docs" / "conformance" / f"experimental-v{__version__}-default-report.yaml"
IMPLEMENTATION = {
    "organization": "dragoman",
    "project": "dragoman",
    "url": "https://dragoman.dev",
    "version": f"v{__version__}",
    "contact": "https://dragoman.dev",
}
# The rig's cluster has these two: one that any Gateway may ask for, and one that is not of its network.
ADDRESSES = {"usable-address": "10.98.200.1", "unusable-address": "192.0.2.1"}
# What a developer waits for, instead of the suite's minutes.
SHORT = {
    "MaxTimeToConsistency": 10,
    "NamespacesMustBeReady": 60,
    **dict.fromkeys(
        [
            "GatewayMustHaveAddress",
            "GatewayMustHaveCondition",
            "GatewayStatusMustHaveListeners",
            "GatewayListenersMustHaveConditions",
            "ListenerSetMustHaveCondition",
            "ListenerSetListenersMustHaveConditions",
            "GWCMustBeAccepted",
            "HTTPRouteMustNotHaveParents",
            "HTTPRouteMustHaveCondition",
            "TLSRouteMustHaveCondition",
            "TCPRouteMustHaveCondition",
            "UDPRouteMustHaveCondition",
            "RouteMustHaveParents",
            "LatestObservedGenerationSet",
            "DefaultTestTimeout",
        ],
        15,
    ),
}


@dataclass
class Outcome:
    """What the suite printed: results of its tests by name, and the lines of each."""

    results: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    lines: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    exit_code: int = 0

    def named(self, result: str) -> list[str]:
        """Returns the tests with this result; those of a mesh are left out."""
        return sorted(name for name, (was, _) in self.results.items() if was == result and not name.startswith("Mesh"))


def main() -> int:
    """Returns the exit code: 0 when all passed, 1 when not, 3 where no cluster can be started here."""
    options = _options()
    rig = Rig.find()
    if (reason := why_no_rig()) or rig is None:
        print(f"conformance: NOT RUN: {reason}")
        return 3
    signal.signal(signal.SIGTERM, _interrupt)
    # A folder for each cluster: several may be at work in one checkout.
    folder = ROOT / "build" / (DEFAULT_NAME if options.name == DEFAULT_NAME else f"{DEFAULT_NAME}-{options.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rig.build("up", "conformance", "helm")
    began = time.monotonic()
    with Cluster.start(options.name, keep=options.keep) as cluster, PodLogs(cluster.api, folder / "pods"):
        try:
            _install(cluster)
        except AssertionError as fault:
            print(f"conformance: NOT RUN: {fault}\n{cluster.describe(NAMESPACE)}")
            return 1
        print(f"conformance: installed after {time.monotonic() - began:.0f} s")
        outcome = _run(rig, cluster, folder, options)
    print(f"conformance: {time.monotonic() - began:.0f} s in all; logs are in {folder.relative_to(ROOT)}")
    return _judge(outcome, folder, whole=not options.test)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test", default="", help="only these tests: regular expressions of whole names, with commas")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up, and use the one that is")
    parser.add_argument("--fast", action="store_true", help="give up sooner than the suite does")
    parser.add_argument("--parallel", type=int, default=4, help="how many of the tests that allow it run at once")
    parser.add_argument("--debug", action="store_true", help="let the suite log each request")
    parser.add_argument("--name", default=os.environ.get("CLUSTER_NAME", DEFAULT_NAME), help="the cluster's name")
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _install(cluster: Cluster) -> None:
    cluster.install()
    if not cluster.fresh:
        cluster.restart()
    document = manifest("GatewayClass", "", GATEWAY_CLASS, None)
    cluster.wait_for(
        document,
        lambda found: found.get("status", {}).get("supportedFeatures"),
        what="the features that the GatewayClass claims",
        within_s=60,
    )


def _run(rig: Rig, cluster: Cluster, folder: Path, options: argparse.Namespace) -> Outcome:
    command = [str(rig.folder / "conformance"), *_flags(rig, folder, options)]
    outcome = Outcome()
    environment = {**rig.environment(cluster.name), "TIMEOUT": "50m"}
    with (
        (folder / "suite.log").open("w") as log,
        subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            _read(_told(process.stdout, log), outcome)
        finally:
            process.terminate()
        outcome.exit_code = process.wait()
    for name, lines in outcome.lines.items():
        path = folder / "tests" / f"{name}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines))
    return outcome


def _flags(rig: Rig, folder: Path, options: argparse.Namespace) -> list[str]:
    flags = {"gateway-class": GATEWAY_CLASS, "conformance-profiles": ",".join(PROFILES), **ADDRESSES}
    flags |= {"test.v": "test2json", "test.parallel": str(options.parallel)}
    if options.keep:
        flags["cleanup-base-resources"] = "false"
    if options.debug:
        flags["debug"] = "true"
    if options.fast or options.test:
        flags["timeout-config-overrides"] = ";".join(f"{name}:{seconds}" for name, seconds in SHORT.items())
    if options.test:
        names = "|".join(f"(?:{name.strip()})" for name in options.test.split(","))
        # What is asked for is run, whether the GatewayClass claims it yet or not.
        flags |= {"test.run": f"^TestConformance$/^(?:{names})$", "supported-features": ",".join(_features(rig))}
    else:
        # Without a list of features the suite takes those that the GatewayClass claims.
        flags |= {"report-output": str(folder / "report.yaml"), **IMPLEMENTATION}
    return [f"-{name}={value}" for name, value in flags.items()]


def _features(rig: Rig) -> list[str]:
    rows = [line.split("\t") for line in (rig.folder / "tests.tsv").read_text().splitlines()]
    column = rows[0].index("features")
    every = {feature for row in rows[1:] for feature in row[column].split(",")}
    return sorted(feature for feature in every if not feature.startswith("Mesh"))


def _told(stream: Any, log: Any) -> Iterator[str]:
    for line in stream:
        log.write(line)
        log.flush()
        # The marker of test2json's format, with which results are printed as they come.
        yield line.lstrip("\x16")


def _read(lines: Iterator[str], outcome: Outcome) -> None:
    current = "suite"
    for line in lines:
        if framed := re.match(r"=== (?:RUN|NAME|CONT|PAUSE)\s+(\S*)", line):
            _, _, current = framed[1].partition("/")
            current = current.partition("/")[0] or "suite"
        elif result := re.match(r"\s*--- (PASS|FAIL|SKIP): TestConformance/([^/\s]+) \(([\d.]+)s\)", line):
            outcome.results[result[2]] = (result[1], float(result[3]))
            if not result[2].startswith("Mesh"):
                print(f"{len(outcome.results):4} {result[1]} {result[2]} {result[3]} s", flush=True)
        else:
            outcome.lines.setdefault(current, []).append(line)


def _judge(outcome: Outcome, folder: Path, *, whole: bool) -> int:
    failed, skipped, passed = (outcome.named(result) for result in ("FAIL", "SKIP", "PASS"))
    for name in failed:
        print(f"FAILED {name}: {folder.relative_to(ROOT)}/tests/{name}.log")
        print("".join(f"    {line}" for line in _errors(outcome.lines.get(name, ()))), end="")
    if skipped:
        print(f"SKIPPED {', '.join(skipped)}")
    faults = [] if outcome.exit_code == 0 else [f"the suite's exit code is {outcome.exit_code}"]
    if not passed:
        print("".join(f"    {line}" for line in _errors(outcome.lines.get("suite", ()))), end="")
        faults.append("no test passed")
    if whole:
        faults += _published(folder / "report.yaml")
    print(f"conformance: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped (beside those of a mesh)")
    for fault in faults:
        print(f"conformance: {fault}")
    return 1 if failed or skipped or faults else 0


def _errors(lines: Sequence[str]) -> list[str]:
    """Returns the lines that most likely say why."""
    faults = [line for line in lines if re.search(r"Error:|Messages:|panic:", line)]
    seen = [line for line in lines if re.match(r"\s+\w+\.go:\d+: \d{4}-", line)]
    return [*seen[-3:], *faults[-6:]] or list(lines[-8:])


def _published(path: Path) -> list[str]:
    """Prints what the report says of each profile, puts it where it is kept, and returns what is amiss."""
    if not path.exists():
        return ["the suite wrote no report"]
    report: dict[str, Any] = yaml.safe_load(path.read_text())
    profiles = {profile["name"]: profile for profile in report.get("profiles") or []}
    report["profiles"] = [profiles[name] for name in PROFILES if name in profiles]
    faults = [f"the report says nothing of {name}" for name in PROFILES if name not in profiles]
    for name, profile in ((name, profiles[name]) for name in PROFILES if name in profiles):
        print(f"{name:14}", *(_counts(level, profile.get(level, {})) for level in ("core", "extended")), sep="  ")
        unclaimed = profile.get("extended", {}).get("unsupportedFeatures", [])
        if unclaimed:
            faults.append(f"{name}: not claimed: {', '.join(unclaimed)}")
        if "extended" not in profile:
            faults.append(f"{name}: no extended feature was tested")
    if profiles:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(yaml.safe_dump(report, sort_keys=False))
        print(f"conformance: the report is {REPORT.relative_to(ROOT)}")
    return faults


def _counts(level: str, status: Mapping[str, Any]) -> str:
    counted = status.get("statistics", {})
    told = ", ".join(f"{counted.get(each.capitalize(), 0)} {each}" for each in ("passed", "failed", "skipped"))
    return f"{level}: {told}"


if __name__ == "__main__":
    sys.exit(main())
