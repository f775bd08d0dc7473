"""What was asked of a cluster's API server, by its own count."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.cluster_api import Api

_LINE = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_WRITES = frozenset({"PUT", "PATCH", "APPLY"})


@dataclass(frozen=True, slots=True)
class StatusWrites:
    """How many requests have written the status of objects of each resource (`httproutes`), and how many conflicted.

    A request for an object that is gone has written nothing.
    """

    done: dict[str, int]
    conflicts: dict[str, int]

    @staticmethod
    def now(api: Api) -> StatusWrites:
        """Reads the API server's counters, which begin anew when it does."""
        done: dict[str, int] = {}
        conflicts: dict[str, int] = {}
        for labels, count in _LINE.findall(api.get("/metrics")):
            values = dict(_LABEL.findall(labels))
            if values.get("subresource") != "status" or values.get("verb") not in _WRITES:
                continue
            code = values.get("code", "")
            if code != "409" and not code.startswith("2"):
                continue
            counts = conflicts if code == "409" else done
            resource = values.get("resource", "")
            counts[resource] = counts.get(resource, 0) + int(float(count))
        return StatusWrites(done, conflicts)

    def since(self, before: StatusWrites, resource: str) -> int:
        """Returns how many writes of a resource came after an earlier reading."""
        return self.done.get(resource, 0) - before.done.get(resource, 0)
