"""What `/metrics` tells of quota mode, made from its plain counts when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric

from dragoman.metrics import Collected, counter, gauge
from ratelimit_service.quota.ledger import Ledger
from ratelimit_service.quota.server import QuotaServer


def collector(ledger: Ledger, server: QuotaServer) -> Collected:
    """Returns the collector to register. Labels are bounded by the configuration."""

    def collect() -> Iterable[Metric]:
        yield gauge(
            "dragoman_ratelimit_quota_streams",
            "Streams of Envoys that enforce their share of limits.",
            (),
            [((), server.streams)],
        )
        yield gauge("dragoman_ratelimit_quota_buckets", "Buckets that are divided.", (), [((), ledger.buckets)])
        shares = ledger.shares()
        labels = ("domain", "descriptor")
        yield gauge(
            "dragoman_ratelimit_quota_shares",
            "Parts that limits are divided into.",
            labels,
            ((key, count) for key, (count, _) in shares.items()),
        )
        yield gauge(
            "dragoman_ratelimit_quota_assigned",
            "Requests a second that Envoys are let do, over all buckets of a limit.",
            labels,
            ((key, held) for key, (_, held) in shares.items()),
        )
        outcomes = (
            ("taken", ledger.reports - ledger.refused - ledger.unknown),
            ("no_room", ledger.refused),
            ("no_rule", ledger.unknown),
        )
        yield counter(
            "dragoman_ratelimit_quota_reports",
            "Reports of one bucket, and what came of them.",
            ("outcome",),
            (((outcome,), count) for outcome, count in outcomes),
        )
        told = (("assigned", ledger.assigned), ("abandoned", ledger.abandoned))
        yield counter(
            "dragoman_ratelimit_quota_actions",
            "What Envoys were told: a share, or to forget a bucket.",
            ("action",),
            (((action,), count) for action, count in told),
        )

    return Collected(collect)
