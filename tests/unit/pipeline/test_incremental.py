"""The pipeline recomputes what depended on a change, no more; and what it says warm, it says cold."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.pipeline import Pipeline
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.unit.pipeline.driver import drop, output, put, stabilise

_PATHS = ["/", "/a", "/a/b", "/c"]
_HOSTS = [[], ["a.example.com"], ["*.example.com"], ["a.example.com", "b.example.com"], ["c.example.org"]]
_SERVICES = ["one", "two", "far"]


def _listener(name: str, port: int, hostname: str | None, source: str) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": port, "protocol": "HTTP", **host, "allowedRoutes": {"namespaces": {"from": source}}}


_gateways = st.builds(
    lambda hosts, source: m.gateway(
        listeners=[_listener(f"l{i}", port, host, source) for i, (port, host) in enumerate(hosts)]
    ),
    st.lists(
        st.tuples(st.sampled_from([80, 81]), st.sampled_from([None, "*.example.com", "a.example.com"])),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    st.sampled_from(["All", "Same"]),
)
_rules = st.lists(
    st.builds(
        lambda path, service, kind, remote: m.rule(path, service, kind=kind, namespace="other" if remote else None),
        st.sampled_from(_PATHS),
        st.sampled_from(_SERVICES),
        st.sampled_from(["Exact", "PathPrefix"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)
_routes = st.builds(
    lambda name, rules, hosts, namespace: m.route(name, rules, hostnames=hosts, namespace=namespace),
    st.sampled_from(["r1", "r2", "r3"]),
    _rules,
    st.sampled_from(_HOSTS),
    st.sampled_from(["demo", "other"]),
)
_bad_routes = st.builds(
    lambda name: m.route(name, [m.rule("/(", "one", kind="RegularExpression")]), st.sampled_from(["r1", "r2"])
)
_backends = st.one_of(
    st.builds(
        lambda name, namespace, protocol: m.service(name, namespace=namespace, protocol=protocol),
        st.sampled_from(_SERVICES),
        st.sampled_from(["demo", "other"]),
        st.sampled_from([None, "kubernetes.io/h2c"]),
    ),
    st.builds(
        lambda name, namespace, addresses, suffix: m.endpoint_slice(
            name, *addresses, namespace=namespace, suffix=suffix
        ),
        st.sampled_from(_SERVICES),
        st.sampled_from(["demo", "other"]),
        st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3"]), max_size=2),
        st.sampled_from("ab"),
    ),
)
_others = st.one_of(
    st.builds(lambda source: m.grant("other", source=source), st.sampled_from(["demo", "elsewhere"])),
    st.builds(m.gateway_class, st.sampled_from(["dragoman.dev/gateway-controller", "example.com/other"])),
)
_documents = st.one_of(_routes, _routes, _bad_routes, _backends, _backends, _gateways, _others)
_edits = st.lists(st.tuples(st.sampled_from(["put", "put", "put", "drop", "stabilise"]), _documents), max_size=25)


def _start(pipeline: Pipeline) -> None:
    for document in (m.gateway_class(), m.gateway(), m.service("one"), m.endpoint_slice("one", "192.0.2.1")):
        put(pipeline, document)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_edits)
def test_incremental_output_equals_cold_output(edits: list[tuple[str, dict[str, Any]]]) -> None:
    warm, cold = Pipeline(), Pipeline()
    _start(warm)
    _start(cold)
    stabilise(warm)
    for action, document in edits:
        if action == "stabilise":
            stabilise(warm)
        for pipeline in (warm, cold):
            if action == "put":
                put(pipeline, document)
            elif action == "drop":
                drop(pipeline, document)
    stabilise(warm)
    stabilise(cold)
    assert output(warm) == output(cold)


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
    assert counts["entries"] == 1
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
    assert counts["entries"] == counts["virtual host"] == counts["route configuration"] == counts["cluster"] == 0
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
