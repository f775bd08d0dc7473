"""What the engine tells Prometheus is what there is, however it came about."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

from controlplane.api.load import key_of
from controlplane.api.meta import ObjectKey
from controlplane.engine import Engine
from controlplane.metrics import EngineMetrics
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from tests.support import manifests as m


def _raw(document: m.Manifest) -> RawObject:
    key = key_of(document)
    assert key is not None
    return RawObject(key, document, Origin("all.yaml"))


def _values(metrics: EngineMetrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def test_objects_are_counted_by_what_changes_and_always_as_they_are() -> None:
    random_ = random.Random(75)
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    metrics = EngineMetrics(engine)
    metrics.stepped(engine.apply(Changes(tuple(map(_raw, (m.gateway_class(), m.gateway()))))))
    for _ in range(60):
        name = f"r{random_.randrange(6)}"
        made = random_.choice([m.route(name, [m.rule("/", random_.choice(["one", "none"]))]), m.service("one")])
        raw = _raw(made)
        gone: tuple[ObjectKey, ...] = (raw.key,) if random_.random() < 0.4 else ()
        metrics.stepped(engine.apply(Changes((raw,) if not gone else (), gone)))
        statuses = engine.pipeline.statuses.current()
        kinds = Counter(key.kind for key in statuses)
        faulty = Counter(key.kind for key, status in statuses.items() if status.faults())
        values = _values(metrics)
        for kind in ("HTTPRoute", "Service", "Gateway"):
            assert values.get(("dragoman_objects", kind), 0) == kinds[kind]
            assert values.get(("dragoman_objects_faulty", kind), 0) == faulty[kind]


def test_resources_are_told_with_their_bytes() -> None:
    engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    metrics = EngineMetrics(engine)
    documents = (m.gateway_class(), m.gateway(), m.service("one"), m.route("r", [m.rule("/", "one")]))
    metrics.stepped(engine.apply(Changes(tuple(map(_raw, documents)))))
    values = _values(metrics)
    (snapshot,) = engine.pipeline.snapshots.current().values()
    for type_url, found in snapshot.resources.items():
        labels = ("demo/edge", type_url.rpartition(".")[2])
        assert values["dragoman_resources", *labels] == len(found)
        assert values["dragoman_resource_bytes", *labels] == sum(len(each.body) for each in found.values())
