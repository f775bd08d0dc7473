"""What `/metrics` tells of the rate limiter, made from its plain counts when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dragoman.metrics import Collected, counter, exposition, gauge, histogram
from ratelimit_service import hits
from ratelimit_service.answers import Answers
from ratelimit_service.service import Service
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.leases import LeaseStore
from ratelimit_service.stores.local import Local
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_node import RedisNode
from ratelimit_service.stores.redis_open import RedisCounters


def collector(
    stats: StatsRegistry,
    answers: Answers,
    service: Service,
    store: Store,
    local: Local,
    leases: LeaseStore | None = None,
) -> Collected:
    """Returns the collector of all but the counts of hits, which `metrics_route` tells."""

    def collect() -> Iterable[Metric]:
        yield from _requests(stats, answers)
        yield from _configuration(service)
        yield gauge(
            "dragoman_ratelimit_store_up", "Whether the store can be asked.", (), [((), float(store.available))]
        )
        if isinstance(store, RedisCounters):
            yield from _redis(store.nodes)
        elif isinstance(store, MemoryStore):
            yield from _memory(store)
        yield from _local(local)
        if leases is not None:
            yield from _leases(leases)

    return Collected(collect)


def metrics_route(registry: CollectorRegistry, stats: StatsRegistry) -> Route:
    """Returns `/metrics`: what is registered, and the counts of hits."""

    async def expose(request: Request) -> Response:
        told = [exposition(registry), *[part.encode() async for part in hits.exposition(stats)]]
        return Response(b"".join(told), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", expose)


def _requests(stats: StatsRegistry, answers: Answers) -> Iterable[Metric]:
    outcomes = (("no_limit", stats.no_limit), ("unknown_domain", stats.unknown_domain), ("malformed", stats.malformed))
    yield counter(
        "dragoman_ratelimit_unlimited_requests",
        "Requests that no limit judged, and why.",
        ("reason",),
        (((reason,), count) for reason, count in outcomes),
    )
    yield counter(
        "dragoman_ratelimit_other_version_requests",
        "Requests judged by another version of their policy, since the one that they name is not known.",
        (),
        [((), stats.other_version)],
    )
    yield counter(
        "dragoman_ratelimit_shadowed_requests",
        "Requests over a limit that were let through because of shadow_mode for all.",
        (),
        [((), answers.shadowed)],
    )
    yield gauge(
        "dragoman_ratelimit_folded_descriptors",
        "Configured descriptors that are counted with others of their domain, for want of room in the metrics.",
        (),
        [((), stats.folded)],
    )
    yield counter(
        "dragoman_ratelimit_folded_values",
        "Times that what a request brought about had no room in the metrics.",
        (),
        [((), stats.folded_values)],
    )


def _configuration(service: Service) -> Iterable[Metric]:
    rows = ((("loaded",), service.loads), (("rejected",), service.rejections))
    yield counter("dragoman_ratelimit_config_loads", "Configurations that came in.", ("outcome",), rows)
    domains = len(service.config.domains)
    yield gauge("dragoman_ratelimit_domains", "Domains with limits.", (), [((), domains)])
    waiting = [((), service.waiting)]
    yield gauge("dragoman_ratelimit_waiting", "Requests that wait for their turn at a leaky bucket.", (), waiting)
    untold = [((), service.untold)]
    yield gauge("dragoman_ratelimit_untold_ends", "Requests that have ended while the store was away.", (), untold)


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
    yield gauge(
        "dragoman_ratelimit_local_parts",
        "Processes that limits are divided among for on_store_error: local.",
        (),
        [((), local.parts)],
    )


def _leases(leases: LeaseStore) -> Iterable[Metric]:
    yield counter(
        "dragoman_ratelimit_lease_checks",
        "Checks of limits with leases: answered from a lease that was there (leased), or by asking the store (waited).",
        ("how",),
        [(("leased",), leases.answered), (("waited",), leases.waited)],
    )
    yield counter("dragoman_ratelimit_lease_refills", "Times that a lease was taken.", (), [((), leases.refills)])
    yield counter("dragoman_ratelimit_lease_hits", "Hits that were leased.", (), [((), leases.granted)])
    yield counter(
        "dragoman_ratelimit_lease_unused_hits",
        "Leased hits that were gone before anybody used them.",
        (),
        [((), leases.unused)],
    )
