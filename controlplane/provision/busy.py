"""Finds which ports are busy on this machine, and who holds them, before anything is started."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from controlplane.provision.binding import Bindings, Clash, Endpoint

_LISTENING = "0A"


def busy(bindings: Bindings) -> tuple[Clash, ...]:
    """Returns a clash for every endpoint that cannot be bound on this machine now."""
    found: list[Clash] = []
    for (gateway, port), endpoints in bindings.bound.items():
        for endpoint in endpoints:
            holder = why_busy(endpoint)
            if holder is not None:
                found.append(Clash(gateway, port, endpoint, holder))
    return tuple(found)


def why_busy(endpoint: Endpoint) -> str | None:
    """Says who holds an endpoint, or why else it cannot be bound; None where it is free."""
    host, port = endpoint
    # Without SO_REUSEPORT, although Envoy sets it: two Envoys would else share the port without a word.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            return _explain(fault, endpoint)
    return None


def _explain(fault: OSError, endpoint: Endpoint) -> str:
    if fault.errno == errno.EADDRINUSE:
        return holder_of(endpoint[1]) or "another process"
    if fault.errno == errno.EADDRNOTAVAIL:
        return "nobody: this machine does not have that address"
    return f"the system ({fault.strerror})"


def holder_of(port: int) -> str | None:
    """Names the process that listens on a TCP port; None where it cannot be told (another user's, or not Linux)."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and inodes & set(_sockets(process)):
            return f"process {process.name} ({_command(process)})"
    return None


def _listening_inodes(port: int) -> Iterable[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _sockets(process: Path) -> Iterable[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "unknown"
