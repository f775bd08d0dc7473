"""Counts verdicts in plain integers, for the request path; the metrics endpoint reads them when it is asked."""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from dragoman.grpc_worker import StatusCode
from dragoman.metrics import Distribution, counter, gauge, histogram
from ext_authz.verdicts import VerdictCache

MAX_POLICIES = 1000
OTHER = "(other)"


class Stats:
    """Counts by policy and reason, of at most so many policies; the rest, and unknown ids, are counted together."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str], int] = {}
        self.seconds = Distribution()
        self.cached = 0
        self.decided = 0
        self.unanswered: dict[StatusCode, int] = {}
        """Calls that ended with another gRPC status than OK: malformed, past their deadline, given up by Envoy."""
        self._policies: set[str] = set()

    def ended(self, method: str, code: StatusCode, seconds: float) -> None:
        """Counts a call that the gRPC worker saw end (a `CallObserver`); verdicts are counted where they are made."""
        if code is not StatusCode.OK:
            self.unanswered[code] = self.unanswered.get(code, 0) + 1

    def passed(self, policy: str, cached: bool, seconds: float) -> None:
        """Counts a verdict that lets pass."""
        if cached:
            self.cached += 1
        else:
            self.decided += 1
        self.count(policy, "ok", seconds)

    def count(self, policy: str, reason: str, seconds: float) -> None:
        """Counts a verdict."""
        self.seconds.observe(seconds)
        try:
            self.verdicts[policy, reason] += 1
        except KeyError:
            self._first(policy, reason)

    def _first(self, policy: str, reason: str) -> None:
        if policy not in self._policies:
            if not policy or len(self._policies) >= MAX_POLICIES:
                policy = OTHER
            self._policies.add(policy)
        self.verdicts[policy, reason] = self.verdicts.get((policy, reason), 0) + 1


def collect(
    stats: Stats, verdicts: VerdictCache, policies: Callable[[], int], store_up: Callable[[], bool] | None
) -> Iterable[Metric]:
    """Yields the service's metrics."""
    yield counter(
        "dragoman_authz_verdicts",
        "Verdicts by policy (NAMESPACE/NAME) and reason; `ok` passed, every other one was refused.",
        ("policy", "reason"),
        stats.verdicts.items(),
    )
    yield counter(
        "dragoman_authz_passes",
        "Requests that passed, by where the verdict came from.",
        ("source",),
        ((("cache",), stats.cached), (("decision",), stats.decided)),
    )
    yield counter(
        "dragoman_authz_calls_unanswered",
        "Calls that got no verdict, by gRPC status: malformed, past their deadline, or given up by Envoy.",
        ("code",),
        (((code.name,), count) for code, count in stats.unanswered.items()),
    )
    yield histogram(
        "dragoman_authz_verdict_seconds",
        "Seconds from a whole CheckRequest until its answer was handed to the connection.",
        (),
        (((), stats.seconds),),
    )
    yield gauge("dragoman_authz_cached_verdicts", "Verdicts in the cache.", (), (((), len(verdicts.passes)),))
    yield gauge("dragoman_authz_policies", "Policies in force.", (), (((), policies()),))
    if store_up is not None:
        yield gauge("dragoman_authz_store_up", "Whether the key store answers.", (), (((), float(store_up())),))
