# pyright: standard, reportAttributeAccessIssue=false
"""Recordings of what envoyproxy/ratelimit answers: requests and answers as short lists, one exchange a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.json_format import MessageToDict

FOLDER = Path(__file__).resolve().parent.parent / "unit" / "ratelimit" / "recorded"


@dataclass(frozen=True, slots=True)
class Recorded:
    """`exchanges` are [second, domain, descriptors, hits_addend, answer]; `stats` are counters by their full name."""

    files: Sequence[str]
    env: Mapping[str, str]
    exchanges: Sequence[Any]
    stats: Mapping[str, int]

    def write(self, path: Path) -> None:
        """Writes a file that `read` reads."""
        head = json.dumps({"files": list(self.files), "env": dict(self.env), "stats": dict(self.stats)})
        lines = [head, *(json.dumps(each, separators=(",", ":")) for each in self.exchanges)]
        path.write_text("\n".join(lines) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Reads a recording."""
        head, *lines = path.read_text("utf-8").splitlines()
        return cls(**json.loads(head), exchanges=[json.loads(line) for line in lines])


def request_of(domain: str, descriptors: Sequence[Mapping[str, Any]], hits: int) -> bytes:
    """Encodes a request; of a descriptor `e` are the entries, `h` its hits_addend, `l` its limit and unit."""
    message = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for given in descriptors:
        descriptor = message.descriptors.add()
        for key, value in given["e"]:
            descriptor.entries.add(key=key, value=value)
        if "h" in given:
            descriptor.hits_addend.value = given["h"]
        if "l" in given:
            descriptor.limit.requests_per_unit, descriptor.limit.unit = given["l"]
    return message.SerializeToString()


def answer_of(response: rls_pb2.RateLimitResponse) -> Any:
    """Returns [code, statuses, headers, metadata]; a status is [code, remaining, limit, unit, name, seconds].

    Of the metadata it is what quota mode says: whether a limit has it, and which are over.
    """
    statuses: list[Any] = []
    for each in response.statuses:
        status: list[Any] = [each.code, each.limit_remaining]
        if each.HasField("current_limit"):
            limit = each.current_limit
            status += [limit.requests_per_unit, limit.unit, limit.name, each.duration_until_reset.seconds]
        statuses.append(status)
    headers = [each.value for each in response.response_headers_to_add if "ratelimit" in each.key.lower()]
    metadata: dict[str, Any] = MessageToDict(response.dynamic_metadata) if response.HasField("dynamic_metadata") else {}
    quota = [metadata.get("quotaModeEnabled"), metadata.get("quotaModeViolations", [])]
    return [response.overall_code, statuses, headers, quota]
