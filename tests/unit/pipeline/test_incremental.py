"""The pipeline recomputes what depended on a change, no more; and what it says warm, it says cold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from controlplane.pipeline import Pipeline, http, shards
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.unit.pipeline.driver import Warm, output, put, stabilise
from tests.unit.pipeline.edits import Edit, Put, batches, beginning


@settings(max_examples=80, deadline=None, derandomize=True)
@given(batches)
def test_incremental_output_equals_cold_output(edits: list[list[Edit]]) -> None:
    _compare(edits)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches)
def test_so_it_does_where_every_host_is_a_tree_and_all_are_in_shards(edits: list[list[Edit]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "TREE_FROM", 1)
        patch.setattr(shards, "SHARDS_FROM", 2)
        _compare(edits)


def _compare(edits: list[list[Edit]]) -> None:
    warm = Warm()
    warm.take([Put(document) for document in beginning()])
    for batch in edits:
        warm.take(batch)
    cold = output(warm.cold())
    heard = warm.heard()
    assert heard["statuses"] == cold["statuses"]
    assert heard["snapshots"] == cold["snapshots"]


def _start(pipeline: Pipeline) -> None:
    for document in (m.gateway_class(), m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1")):
        put(pipeline, document)


def _many(routes: int) -> Pipeline:
    pipeline = Pipeline()
    _start(pipeline)
    for index in range(routes):
        rules = [m.rule(f"/p{index}", "one")]
        put(pipeline, m.route(f"route-{index}", rules, hostnames=[f"h{index // 10}.example.com"]))
    stabilise(pipeline)
    pipeline.snapshots.take_changes()
    pipeline.graph.recomputed.clear()
    return pipeline


def test_editing_one_route_recomputes_that_route_and_its_host() -> None:
    pipeline = _many(200)
    put(pipeline, m.route("route-7", [m.rule("/moved", "one")], hostnames=["h0.example.com"]))
    stabilise(pipeline)
    counts = pipeline.graph.recomputed
    assert counts["pieces"] == 1
    assert counts["compiled route"] == 1
    assert counts["virtual host"] == 1
    assert counts["route configuration"] == 1
    assert counts["cluster"] == counts["endpoints"] == counts["listener"] == 0


def test_an_endpoint_change_touches_one_cluster_load_assignment_and_nothing_else() -> None:
    pipeline = _many(50)
    before = dict(pipeline.snapshots.current())
    put(pipeline, m.endpoint_slice("one", "192.0.2.7"))
    stabilise(pipeline)
    counts = pipeline.graph.recomputed
    assert counts["endpoints"] == 1
    assert counts["pieces"] == counts["virtual host"] == counts["route configuration"] == counts["cluster"] == 0
    for key, snapshot in pipeline.snapshots.current().items():
        for type_url, found in snapshot.resources.items():
            assert (found is before[key].of_type(type_url)) == (type_url != xds.ENDPOINT)


def test_reordering_the_rules_of_a_route_renames_nothing() -> None:
    pipeline = _many(1)
    rules = [m.rule("/x", "one"), m.rule("/y", "one"), m.rule("/z", "one")]
    put(pipeline, m.route("route-0", rules))
    stabilise(pipeline)
    names = {t: set(r) for s in pipeline.snapshots.current().values() for t, r in s.resources.items()}
    put(pipeline, m.route("route-0", rules[::-1]))
    stabilise(pipeline)
    assert names == {t: set(r) for s in pipeline.snapshots.current().values() for t, r in s.resources.items()}


def test_the_last_good_version_of_a_route_stands_in_for_a_bad_one() -> None:
    pipeline = _many(3)
    good = output(pipeline)["snapshots"]
    for key, admitted in list(pipeline.objects.everything()):
        pipeline.objects.accepted.set(key, admitted.object)
    key = put(pipeline, m.route("route-1", [m.rule("/(", "one", kind="RegularExpression")]))
    stabilise(pipeline)
    assert output(pipeline)["snapshots"] == good
    (fault,) = pipeline.statuses.current()[key].faults()
    assert "the last good version stays in force" in fault.message
    assert fault.field == "spec.rules[0].matches[0].path.value"
