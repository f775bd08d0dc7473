"""Counts verdicts in plain integers, for the request path; the metrics endpoint reads them when it is asked."""

from bisect import bisect_left

from ext_authz.identity import Reason

BUCKETS_S = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
MAX_POLICIES = 1000
OTHER = "(other)"


class Stats:
    """Counts by policy and reason, of at most so many policies; the rest, and unknown ids, are counted together."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str], int] = {}
        self.latency = [0] * (len(BUCKETS_S) + 1)
        self.latency_sum_s = 0.0
        self.cached = 0
        self.decided = 0
        self.malformed = 0
        self._policies: set[str] = set()

    def passed(self, policy: str, cached: bool, seconds: float) -> None:
        """Counts a verdict that lets pass."""
        if cached:
            self.cached += 1
        else:
            self.decided += 1
        self._count(policy, "ok", seconds)

    def refused(self, policy: str, reason: Reason, seconds: float) -> None:
        """Counts a refusal."""
        self._count(policy, reason.value, seconds)

    def _count(self, policy: str, reason: str, seconds: float) -> None:
        self.latency[bisect_left(BUCKETS_S, seconds)] += 1
        self.latency_sum_s += seconds
        try:
            self.verdicts[(policy, reason)] += 1
        except KeyError:
            self._first(policy, reason)

    def _first(self, policy: str, reason: str) -> None:
        if policy not in self._policies:
            if not policy or len(self._policies) >= MAX_POLICIES:
                policy = OTHER
            self._policies.add(policy)
        self.verdicts[(policy, reason)] = self.verdicts.get((policy, reason), 0) + 1
