"""What `/metrics` tells of the rate limiter, made from its plain counts when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric

from dragoman.metrics import Collected, counter, gauge, histogram
from ratelimit_service.service import Service
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.local import Local
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_node import RedisNode
from ratelimit_service.stores.redis_store import RedisStore

_HITS = {
    "total": "Hits on a limit.",
    "within": "Hits within a limit.",
    "near": "Hits within a limit, or reaching it, that were near it.",
    "over": "Hits over a limit, those in shadow mode included.",
    "over_local": "Hits over a limit that was known without asking the store.",
    "shadow": "Hits over a limit in shadow mode, which were let through.",
    "errors": "Hits that the store could not judge: they followed on_store_error.",
}


def collector(stats: StatsRegistry, service: Service, store: Store, local: Local) -> Collected:
    """Returns the collector to register. Labels are bounded by the configuration and by `StatsRegistry`."""

    def collect() -> Iterable[Metric]:
        yield from _decisions(stats)
        yield from _configuration(service)
        yield gauge(
            "dragoman_ratelimit_store_up", "Whether the store can be asked.", (), [((), float(store.available))]
        )
        if isinstance(store, RedisStore):
            yield from _redis(store.nodes)
        elif isinstance(store, MemoryStore):
            yield from _memory(store)
        yield from _local(local)

    return Collected(collect)


def _decisions(stats: StatsRegistry) -> Iterable[Metric]:
    for name, help in _HITS.items():
        rows = ((key, getattr(counts, name)) for key, counts in stats.items())
        yield counter(
            f"dragoman_ratelimit_hits_{name}" if name != "total" else "dragoman_ratelimit_hits",
            help,
            ("domain", "descriptor"),
            rows,
        )
    outcomes = (("no_limit", stats.no_limit), ("unknown_domain", stats.unknown_domain), ("malformed", stats.malformed))
    yield counter(
        "dragoman_ratelimit_unlimited_requests",
        "Requests that no limit judged, and why.",
        ("reason",),
        (((reason,), count) for reason, count in outcomes),
    )


def _configuration(service: Service) -> Iterable[Metric]:
    rows = ((("loaded",), service.loads), (("rejected",), service.rejections))
    yield counter("dragoman_ratelimit_config_loads", "Configurations that came in.", ("outcome",), rows)
    domains = len(service.config.domains)
    yield gauge("dragoman_ratelimit_domains", "Domains with limits.", (), [((), domains)])


def _redis(nodes: Sequence[RedisNode]) -> Iterable[Metric]:
    yield gauge(
        "dragoman_ratelimit_store_node_up",
        "Whether a Redis server can be asked.",
        ("node",),
        [((node.name,), float(node.available)) for node in nodes],
    )
    yield histogram(
        "dragoman_ratelimit_store_seconds",
        "Seconds that Redis took to reply, one observation for each batch of replies.",
        ("node",),
        [((node.name,), node.latency) for node in nodes],
    )
    errors = [((node.name, kind), count) for node in nodes for kind, count in node.errors.items()]
    yield counter("dragoman_ratelimit_store_errors", "What went wrong with Redis, by kind.", ("node", "kind"), errors)
    unanswered = [((node.name,), node.unanswered) for node in nodes]
    yield counter("dragoman_ratelimit_store_unanswered", "Checks without an answer.", ("node",), unanswered)


def _memory(store: MemoryStore) -> Iterable[Metric]:
    yield gauge("dragoman_ratelimit_store_keys", "Counters held in memory.", (), [((), store.keys)])
    yield counter("dragoman_ratelimit_store_full", "New counters that had no room.", (), [((), store.refused)])
    yield gauge(
        "dragoman_ratelimit_store_since_seconds",
        "Unix time since which memory has counted: another value says that what it had counted is lost.",
        (),
        [((), store.since)],
    )
    yield counter("dragoman_ratelimit_store_served", "Checks counted for other workers.", (), [((), store.served)])


def _local(local: Local) -> Iterable[Metric]:
    yield counter(
        "dragoman_ratelimit_local_checks",
        "Checks that were decided by on_store_error: local.",
        (),
        [((), local.decided)],
    )
    yield gauge("dragoman_ratelimit_local_keys", "Counters held for on_store_error: local.", (), [((), local.keys)])
